"""Enrolment, the device's side: a token in, the server's authority and the device's number out.

The device trusts nothing but the fingerprint in its token: it fetches the authority's certificate, compares, and talks
to the server only under it. Its private key is made here and never leaves.
"""

import hashlib
import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from client.home import DeviceConfig, Home
from client.reach import refusal
from fedstill.config import parse
from fedstill.errors import ConfigError, ReleaseError
from fedstill.files import write_atomic, write_private
from fedstill.invitation import Invitation
from fedstill.release.trust import Trust

log = logging.getLogger("fedstill")
TIMEOUT = 150.0  # seconds; the server registers the device before it answers
PATIENCE = 60.0
"""Seconds to wait for a server that is still starting."""
PAUSE = 1.0  # seconds between two attempts
STARTING = (http.client.BAD_GATEWAY, http.client.SERVICE_UNAVAILABLE, http.client.GATEWAY_TIMEOUT)
"""What a proxy, or the enrolment service, answers while what stands behind it is not up."""
MAX_REPLY = 64 * 1024


class _StartingError(ConfigError):
    """The server is not up, which may pass."""


def enrol(
    home: Home,
    token: str,
    *,
    data: Path | None = None,
    proxy: Path | None = None,
    port: int = 9094,
    tell: Callable[[str], object] = log.info,
) -> DeviceConfig:
    """Make this machine a device of the token's server.

    Args:
        home: where to keep what it is.
        token: the line that the server printed.
        data: description of the device's data.
        proxy: the proxy set.
        port: loopback port for Flower's processes.
        tell: is called with a line if the server is not up yet and waited for, `PATIENCE` seconds at most.

    Raises:
        ConfigError: there is a device already, the token is refused, or the server is not up or not the token's.
    """
    if home.config_path.exists():
        raise ConfigError(
            f"{home.folder}: a device is enrolled here already; remove the folder, or give another --home"
        )
    invitation = Invitation.decode(token)
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = _public_key(home.key)
    authority, reply = _asked(invitation, {"token": invitation.secret, "public_key": public}, tell)
    told = {key: reply.get(key) for key in ("number", "device_class", "superlink")}
    if isinstance(reply.get("root"), str) and not home.root.exists():  # its owner may have put another one there
        _check_root(reply["root"], invitation.address)
        write_atomic(home.root, reply["root"].encode())
    if home.root.exists():
        told["delivery"] = reply.get("delivery", "")
    own = {"data": _absolute(data), "proxy": _absolute(proxy), "supernode_port": port}
    config = parse(DeviceConfig, {**told, **own}, f"the reply of {invitation.address}")
    write_atomic(home.authority, authority)
    home.make_secret()
    write_atomic(home.config_path, tomli_w.dumps(config.model_dump()).encode())
    return config


def _asked(
    invitation: Invitation, content: dict[str, str], tell: Callable[[str], object]
) -> tuple[bytes, dict[str, Any]]:
    """Return the server's authority and its reply, waiting for a server that is still starting."""
    began, told = time.monotonic(), False
    while True:
        try:
            authority = _authority(invitation)
            return authority, _ask(invitation, authority, content)
        except _StartingError as error:
            if time.monotonic() > began + PATIENCE:
                raise
            if not told:
                tell(f"{error}; waiting for it, {PATIENCE:g} s at most")
                told = True
            time.sleep(PAUSE)


def _check_root(content: str, address: str) -> None:
    try:
        Trust.load(content.encode(), f"the root of {address}")
    except ReleaseError as error:
        raise ConfigError(str(error)) from error


def _absolute(path: Path | None) -> str:
    return str(path.resolve()) if path is not None else ""


def make_key(path: Path) -> None:
    """Write a private key of the kind that Flower takes, for its owner's eyes alone."""
    key = ec.generate_private_key(ec.SECP384R1())
    content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_private(path, content)


def _public_key(path: Path) -> str:
    """Return the public half of the key in a file, made if there is none: a repeated enrolment is with the same one."""
    if not path.exists():
        make_key(path)
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except ValueError as error:
        raise ConfigError(f"{path}: this key is damaged; remove it, and a new one is made") from error
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _authority(invitation: Invitation) -> bytes:
    """Fetch the authority's certificate over a connection that proves nothing, and compare it with the token's.

    What is returned is the certificate that was compared, and nothing else that came with it: whoever sits between
    could add an authority of their own.
    """
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    status, content = _exchange(invitation, anyone, "GET", "/ca.crt")
    if status in STARTING:
        raise _StartingError(f"{invitation.address} has no enrolment service that is up (status {status})")
    if status != http.client.OK:
        raise ConfigError(f"{invitation.address} can't enrol just now (status {status}); try again in a minute")
    try:
        certificate = ssl.PEM_cert_to_DER_cert(content.decode("ascii"))
    except ValueError:
        certificate = b""
    if hashlib.sha256(certificate).hexdigest() != invitation.authority:
        raise ConfigError(f"{invitation.address} is not the server of this token: its authority is another one")
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")


def _ask(invitation: Invitation, authority: bytes, content: dict[str, str]) -> dict[str, Any]:
    context = ssl.create_default_context(cadata=authority.decode("ascii"))
    status, reply = _exchange(invitation, context, "POST", "/v1/enroll", json.dumps(content).encode())
    try:
        said = json.loads(reply)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ConfigError(f"{invitation.address} does not answer as an enrolment service does (status {status})")
    if status in STARTING:
        raise _StartingError(f"{invitation.address} can't enrol yet: {str(said.get('error', status))[:500]}")
    if status != http.client.OK:
        raise ConfigError(f"{invitation.address} refused: {str(said.get('error', status))[:500]}")
    return said


def _exchange(
    invitation: Invitation, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    host, port = invitation.place
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read(MAX_REPLY)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(refusal(invitation.address, error)) from error
    except ConnectionRefusedError as error:
        raise _StartingError(f"nothing answers at {invitation.address}, no enrolment service is up") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # UnicodeError: no host can have this name
        raise ConfigError(f"{invitation.address} can't be reached: {error}; is the enrolment service up?") from error
    finally:
        connection.close()
