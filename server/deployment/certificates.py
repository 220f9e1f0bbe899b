"""The server's own certificate authority, and the certificate that it gives to the server."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedstill.files import write_atomic

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
LOCAL = ("localhost", "127.0.0.1")
"""By what this machine's own processes reach the server."""


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, and that is not there yet."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


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
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    authority = (
        _begun(issuer, issuer, ca.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_encipherment=False, key_cert_sign=True, crl_sign=True, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca.public_key()), critical=False)
        .sign(ca, hashes.SHA384())
    )
    own = _key_to(folder / "server.key")
    server = (
        _begun(names[0][:64], issuer, own.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_encipherment=False, key_cert_sign=False, crl_sign=False, **usage),
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
    pem = authority.public_bytes(Encoding.PEM)
    write_atomic(folder / "server.crt", server.public_bytes(Encoding.PEM) + pem)
    write_atomic(folder / "ca.crt", pem)


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a PEM certificate in hexadecimal digits.

    Raises:
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()
