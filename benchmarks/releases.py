"""A signed release of any size in a store, and a certificate for this machine: what deliveries are measured with."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fedstill.release.manifest import (
    INT8_FILE,
    Description,
    Expected,
    File,
    Input,
    Normalization,
    Output,
    Parent,
    Runtime,
    SelfTest,
)
from fedstill.release.verify import digest
from server.release.keys import open_keys
from server.release.sign import sign_folder
from server.release.store import publish


def published(folder: Path, size: int) -> Path:
    """Publish a release of random bytes to `folder`/store, and return its file there."""
    place, keys = folder / "release", open_keys(folder / "keys")
    place.mkdir()
    (place / INT8_FILE).write_bytes(np.random.default_rng(0).bytes(size))
    length, sha256 = digest(place / INT8_FILE)
    description = Description(
        device_class="pi5",
        task="digits",
        student="none",
        label_names=("a", "b"),
        input=Input(
            name="image",
            shape=("batch", 1, 1, 1),
            type="float32",
            normalization=Normalization(scale=1 / 255, mean=(0.5,), std=(0.5,)),
        ),
        output=Output(name="logits", shape=("batch", 2), type="float32"),
        artifact=INT8_FILE,
        files={INT8_FILE: File(format="random", bytes=length, sha256=sha256)},
        runtime=Runtime(onnxruntime_minimum="1.20", onnxruntime="1.20", opset=20, ir_version=10),
        self_test=SelfTest(
            images=base64.b64encode(b"x").decode(),
            shape=(1, 1, 1, 1),
            expected={INT8_FILE: Expected(exact=True, logits=((0.0, 1.0),))},
        ),
        metrics={},
    )
    sign_folder(place, description, Parent(run="benchmark", scenario="none", seed=0, rounds=0), keys)
    signed = publish(place, str(folder / "store"), keys)
    return folder / "store" / signed.device_class / str(signed.version) / INT8_FILE


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make a certificate for localhost that signs itself, and return the files of authority, certificate and key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    cert_path, key_path = folder / "server.pem", folder / "server.key"
    cert_path.write_bytes(signed.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_path, cert_path, key_path
