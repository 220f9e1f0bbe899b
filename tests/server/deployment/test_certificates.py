import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from fedstill.errors import ConfigError
from server.deployment.certificates import fingerprint, last_day, make_certificates, names_of, renew


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificates(tmp_path, ("fl.example.org",))
    return tmp_path


def leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())


def test_a_renewed_certificate_has_the_same_authority_key_and_names_and_one_more(folder: Path) -> None:
    before, authority = leaf(folder), fingerprint((folder / "ca.crt").read_bytes())
    renew(folder, ("10.0.0.7",))
    after = leaf(folder)
    assert after.serial_number != before.serial_number
    assert names_of(after) == (*names_of(before), "10.0.0.7")
    assert after.public_key() == before.public_key()
    assert fingerprint((folder / "ca.crt").read_bytes()) == authority
    after.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))
    assert last_day((folder / "server.crt").read_bytes()) == after.not_valid_after_utc


def test_key_and_renewed_certificate_are_a_pair(folder: Path) -> None:
    renew(folder)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / "server.crt", folder / "server.key")


def test_without_the_authoritys_key_nothing_is_changed(folder: Path) -> None:
    before = (folder / "server.crt").read_bytes()
    (folder / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key: No such file.*needs the authority's key"):
        renew(folder)
    assert (folder / "server.crt").read_bytes() == before


def test_another_authoritys_key_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    make_certificates(other, ("fl.example.org",))
    shutil.copy(other / "ca.key", folder / "ca.key")
    with pytest.raises(ConfigError, match="is not the key of"):
        renew(folder)


@pytest.mark.parametrize("name", ["ca.key", "server.key", "server.crt"])
def test_a_damaged_file_is_told_in_one_line(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(ConfigError, match="is damaged"):
        renew(folder)
