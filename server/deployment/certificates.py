"""The server's own certificate authority, and the certificate that it gives to the server."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedstill.errors import ConfigError
from fedstill.files import write_atomic, write_private

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
LOCAL = ("localhost", "127.0.0.1")
"""By what this machine's own processes reach the server."""
USAGE = dict.fromkeys(
    ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
)
"""What no key of ours is for."""


def _name(text: str) -> x509.Name:
    # What such a name takes; names of hosts may be longer, and stand in full in the certificate's extension.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_to(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _begun(subject: str, issuer: str, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    # Devices boot without a clock: one that is some hours behind must still accept a new certificate.
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def make_certificates(folder: Path, names: tuple[str, ...]) -> None:
    """Write `ca.key`, `ca.crt`, `server.key` and `server.crt` for a server of these names or addresses.

    Raises:
        OSError: a file can't be written, or a key is there already.
    """
    issuer = f"Fedstill authority of {names[0]}"
    ca = _key_to(folder / "ca.key")
    authority = (
        _begun(issuer, issuer, ca.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_encipherment=False, key_cert_sign=True, crl_sign=True, **USAGE),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca.public_key()), critical=False)
        .sign(ca, hashes.SHA384())
    )
    own = _key_to(folder / "server.key")
    _write_server_certificate(folder, names, own, ca, authority)
    write_atomic(folder / "ca.crt", authority.public_bytes(Encoding.PEM))


def _write_server_certificate(
    folder: Path,
    names: tuple[str, ...],
    own: ec.EllipticCurvePrivateKey,
    ca: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
) -> None:
    issuer = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    server = (
        _begun(names[0], str(issuer), own.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_encipherment=False, key_cert_sign=False, crl_sign=False, **USAGE),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys((*names, *LOCAL))]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
        .sign(ca, hashes.SHA384())
    )
    write_atomic(folder / "server.crt", server.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM))


def renew(folder: Path, more: tuple[str, ...] = ()) -> None:
    """Write a new `server.crt` for the same key, with the names of the old one and others.

    The key stays, so that at no moment key and certificate on the disk are of different pairs.

    Raises:
        ConfigError: a file is missing or damaged, or the authority is another one's.
    """
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        ca = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        own = load_pem_private_key((folder / "server.key").read_bytes(), None)
        old = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; a new certificate needs the authority's key") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{folder}: a key or certificate in it is damaged: {error}") from error
    if not isinstance(ca, ec.EllipticCurvePrivateKey) or not isinstance(own, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder}: a key in it is of another kind than `fedstill server init` makes")
    if ca.public_key() != authority.public_key():
        raise ConfigError(f"{folder / 'ca.key'} is not the key of {folder / 'ca.crt'}, which the devices trust")
    _write_server_certificate(folder, tuple(dict.fromkeys((*names_of(old), *more))), own, ca, authority)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses that a certificate is for."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in found)


def last_day(certificate: bytes) -> datetime:
    """Return when a PEM certificate (the first one of several) ends.

    Raises:
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a PEM certificate in hexadecimal digits.

    Raises:
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()
