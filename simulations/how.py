"""How runs are computed, as the command line says it; neither torch nor Flower is needed to say so."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from fedstill.loading import require
from fedstill.workers import begin
from server.release.home import default_folder

# What a run imports when it needs it, at its end or while its workers do: it must be there.
require("cryptography", "flwr", "grpc", "jinja2", "markupsafe", "matplotlib", "onnx", "onnxruntime", "onnxscript")
require("securesystemslib", "torch", "tuf")


class Engine(StrEnum):
    """How messages reach the hosts."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class How:
    """How runs are computed and signed, which changes no result: of the executor `cohort`, none but in its roundings.

    Attributes:
        engine: how messages reach the hosts.
        hosts: Flower nodes that share the devices; 0: `least`, or so many that no message is large.
        workers: processes on this machine.
        table: whether each run prints its table.
        keys: folder of the keys that sign the releases.
        references: folder of the references that runs share; None: they share none.
        ray_address: of a running Ray cluster, for the engine `ray`; empty: Ray is started for the run.
        least: hosts at least where `hosts` leaves it open.
    """

    engine: Engine
    hosts: int
    workers: int
    table: bool = True
    keys: Path = field(default_factory=default_folder)
    references: Path | None = None
    ray_address: str = ""
    least: int = 1

    def begin(self) -> None:
        """Let the processes that compute load what they need while this one goes on."""
        begin(self.workers, *(["simulations.host"] if self.engine is Engine.local else []))
