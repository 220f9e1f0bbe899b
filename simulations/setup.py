"""What server and hosts of a simulated run both derive from the run configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.release.home import default_folder
from simulations.methods import OWN, load_method
from simulations.scenario import Scenario

DEVICES_PER_HOST = 500
"""Their packets are one message: some 25 MB of an MNIST round."""


@dataclass(frozen=True)
class Setup:
    """A run: its scenario, its folder, and how it is computed.

    Attributes:
        scenario: the resolved scenario.
        out: the run folder.
        workers: processes that compute devices and class students on a host.
        engine: name of the engine, for the summary.
        keys: folder of the keys that sign the releases.
        references: folder of the references that this run shares with others; None: it shares none.
    """

    scenario: Scenario
    out: Path
    workers: int
    engine: str
    keys: Path = field(default_factory=default_folder)
    references: Path | None = None

    @property
    def assets(self) -> Path:
        """Folder with the run's data."""
        return self.out / "assets"

    @property
    def device_states(self) -> Path:
        """Folder with the virtual devices' disks."""
        return self.out / "devices"


def setup_from(run_config: Mapping[str, Any], run_id: int) -> Setup:
    """Resolve a run configuration.

    Args:
        run_config: keys `scenario`, `method`, `data-dir`, `overrides`, `out`, `keys`; `fedstill simulate` adds
            `workers`, `engine` and `references`.
        run_id: names the run folder when `out` is empty.
    """
    changes = [change for change in str(run_config.get("overrides", "")).split(";") if change.strip()]
    if run_config.get("data-dir"):
        changes.append(f"data.dir='{Path(str(run_config['data-dir'])).resolve()}'")
    scenario = load_method(str(run_config["scenario"]), str(run_config.get("method", "")) or OWN, changes)
    out = str(run_config.get("out", "")) or f"runs/{scenario.name}-{run_id}"
    return Setup(
        scenario=scenario,
        out=Path(out).resolve(),
        workers=int(run_config.get("workers", 1)),
        engine=str(run_config.get("engine", "flwr")),
        keys=Path(str(run_config.get("keys", "")) or default_folder()).resolve(),
        references=Path(str(run_config["references"])) if run_config.get("references") else None,
    )


def hosts_of(devices: int) -> int:
    """Return how many hosts share so many devices, if no message is to be large."""
    return -(-devices // DEVICES_PER_HOST)
