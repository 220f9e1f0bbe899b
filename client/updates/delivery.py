"""The delivery service as a device sees it: TLS, deadlines, and not a byte more than was asked for.

Everything that comes is untrusted. What is checked here is the exchange (offsets, sizes, time); what the bytes are
worth, `client.updates.updater` finds out.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from fedstill.errors import ConfigError, UpdateError
from fedstill.failures import plain
from fedstill.release.trust import MAX_METADATA
from protos.delivery_pb2 import FetchRequest, NewestReply, NewestRequest, Telemetry
from protos.delivery_pb2_grpc import DeliveryStub

MAX_MESSAGE = 16 * MAX_METADATA  # bytes: three metadata files and a dozen roots
ANSWER = 60.0  # seconds for a small answer
SLOWEST = 1000  # bytes per second: a link below that is as good as none
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 60_000),  # a link may be slow or asleep: ask after a minute of silence
    ("grpc.keepalive_timeout_ms", 30_000),
)


@dataclass(frozen=True)
class Access:
    """How to reach a server.

    Attributes:
        server: `HOST:PORT`.
        ca: PEM file of the authorities that may vouch for it; None: those that gRPC knows.
        certificate: PEM file that this device shows; None: it shows none.
        key: PEM file of the certificate's private key.
        insecure: without TLS, to this machine alone.
    """

    server: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def channel(self) -> grpc.Channel:
        """Open a channel; it connects when it is used.

        Raises:
            ConfigError: a file can't be read, or it would be without TLS over a network.
        """
        if self.insecure:
            if not _loopback(self.server.rpartition(":")[0]):
                raise ConfigError(f"{self.server}: --insecure is for a server on this machine; use TLS (--ca FILE)")
            return grpc.insecure_channel(self.server, OPTIONS)
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--certificate and --key belong together")
        try:
            parts = [path.read_bytes() if path else None for path in (self.ca, self.key, self.certificate)]
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        return grpc.secure_channel(self.server, grpc.ssl_channel_credentials(*parts), OPTIONS)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Server:
    """A server of releases.

    Args:
        channel: leads to it.
        name: what to call it in errors.
    """

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self._stub, self._name = DeliveryStub(channel), name

    def newest(self, request: NewestRequest) -> NewestReply:
        """Ask what this device should run.

        Raises:
            UpdateError: no answer, or a refusal.
        """
        try:
            return self._stub.Newest(request, timeout=ANSWER)
        except grpc.RpcError as error:
            raise self._failure(error) from error

    def fetch(self, request: FetchRequest, length: int) -> Iterator[bytes]:
        """Yield the bytes of a file from the request's offset on, up to its length; what came so far counts.

        Args:
            request: which file, from where.
            length: signed bytes of the whole file.

        Raises:
            UpdateError: other bytes than asked for, more than signed, or the connection broke.
        """
        place, name = request.offset, request.name
        call = self._stub.Fetch(request, timeout=ANSWER + (length - place) / SLOWEST)
        try:
            for chunk in call:
                if chunk.offset != place:
                    raise UpdateError(f"{self._name}: {name}: bytes from {chunk.offset} on, asked for {place}")
                if not chunk.data:
                    raise UpdateError(f"{self._name}: {name}: an empty chunk")
                place += len(chunk.data)
                if place > length:
                    raise UpdateError(f"{self._name}: {name}: more than the {length} bytes that are signed")
                yield chunk.data
                if place == length:
                    return
        except grpc.RpcError as error:
            raise self._failure(error) from error
        finally:
            call.cancel()

    def report(self, telemetry: Telemetry) -> int | None:
        """Tell the server what happened, and return up to which report it knows; None: it refuses this one for good.

        Raises:
            UpdateError: it can't be told now.
        """
        try:
            return self._stub.Report(telemetry, timeout=ANSWER).accepted_sequence
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                return None
            raise self._failure(error) from error

    def _failure(self, error: grpc.RpcError) -> UpdateError:
        return UpdateError(f"{self._name}: {error.code().name.lower()}: {plain(error.details() or '')}")
