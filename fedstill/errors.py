"""Errors that people read: one line saying what, where and what to do.

FedstillError           ends a command with exit code 2
├── ConfigError         unknown scenario or key, value out of range
├── DataError           missing, corrupt or too small data
├── RunFolderError      run folder in use, not resumable, or of another configuration
├── QuorumError         fewer usable replies than the round needs
├── ExportError         a student that does not survive export or quantization
├── ReleaseError        a release, a store or a root that is not to be trusted
├── UpdateError         an update that did not happen now; the device keeps what it runs
└── PacketError         a packet refused; the round goes on without it
    ├── StaleCacheError a packet that does not fit the label cache of its receiver
    └── StaleBaseError  a delta to labels that its receiver does not hold
"""


class FedstillError(Exception):
    """Base of all errors that carry a message for the user."""


class ConfigError(FedstillError):
    """The configuration can't be used as it is."""


class DataError(FedstillError):
    """The data can't be used as they are."""


class RunFolderError(FedstillError):
    """The run folder can't be used for this command."""


class QuorumError(FedstillError):
    """A round got fewer usable replies than its quorum."""


class ExportError(FedstillError):
    """A student can't be exported, quantized or verified."""


class ReleaseError(FedstillError):
    """A release is refused, with the reason."""


class UpdateError(FedstillError):
    """An update did not happen now, and can be tried again; the device keeps what it runs."""


class PausedError(FedstillError):
    """A run ended after a round because it was asked to, and goes on with --resume."""


class PacketError(FedstillError):
    """A packet of soft labels is refused, with the reason."""


class StaleCacheError(PacketError):
    """The packet does not fit the receiver's label cache.

    Args:
        held: version that the receiver can go on from, 0: none.
        reason: what does not fit.
    """

    def __init__(self, held: int, reason: str) -> None:
        super().__init__(reason)
        self.held = held


class StaleBaseError(PacketError):
    """The delta refers to labels that the receiver does not hold; it needs a full packet."""
