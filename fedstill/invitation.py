"""The line that enrols a device: where the server is, by what the device knows it, and the secret of one use."""

import base64
import json
import re
from dataclasses import dataclass

from fedstill.errors import ConfigError

ADDRESS = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]*)|\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]):([0-9]{1,5})")
"""Name or address of a host, one of IPv6 in brackets, and a port."""
PREFIX = "fedstill1-"
MAX_LENGTH = 2000


def host_and_port(address: str) -> tuple[str, int]:
    """Return host and port of an address.

    Raises:
        ValueError: it is none.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ValueError("not an address of the form host:port")
    return found[1] or found[2], int(found[3])


@dataclass(frozen=True)
class Invitation:
    """What a token carries.

    Attributes:
        address: of the enrolment service, host:port.
        authority: SHA-256 of the server's authority certificate, in hexadecimal digits.
        secret: what the server knows the token by.
    """

    address: str
    authority: str
    secret: str

    def encode(self) -> str:
        """Return the token, one word."""
        content = json.dumps([self.address, self.authority, self.secret], separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(content).decode().rstrip("=")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of the enrolment service."""
        return host_and_port(self.address)

    @classmethod
    def decode(cls, token: str) -> "Invitation":
        """Read a token.

        Raises:
            ConfigError: it is none, or not all of one.
        """
        word = token.strip()
        problem = "this is no token, or not all of it; copy the whole line that `fedstill server token` printed"
        if not word.startswith(PREFIX) or len(word) > MAX_LENGTH:
            raise ConfigError(problem)
        body = word.removeprefix(PREFIX)
        try:
            content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, RecursionError) as error:
            raise ConfigError(problem) from error
        if not isinstance(content, list) or len(content) != 3 or not all(isinstance(part, str) for part in content):
            raise ConfigError(problem)
        address, authority, secret = content
        if not re.fullmatch(r"[0-9a-f]{64}", authority):
            raise ConfigError(problem)
        try:
            host_and_port(address)
        except ValueError as error:
            raise ConfigError(problem) from error
        return cls(address, authority, secret)
