"""The evaluation of a release on this machine: verified first, then measured file by file."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import client.probe as probe
from client.evaluate import energy
from client.evaluate.labelled import labelled
from client.evaluate.measure import Cost, Effort, Knowledge, Model, measure
from fedstill.errors import ReleaseError
from fedstill.release.manifest import Manifest
from fedstill.release.selftest import self_test
from fedstill.release.trust import Trust
from fedstill.release.verify import verify_folder

NO_DATA = "no labelled data: name some with --data"


@dataclass(frozen=True)
class Evaluated:
    """A release on this machine.

    Attributes:
        manifest: of the release.
        machine: what this machine is.
        costs: by model file.
        known: by model file; empty: no data.
        source: which data they are.
        seed: of the disturbances.
        no_power: why there are no figures of power; empty: there are.
    """

    manifest: Manifest
    machine: probe.Machine
    costs: Mapping[str, Cost]
    known: Mapping[str, Knowledge]
    source: str
    seed: int
    no_power: str

    def content(self) -> dict[str, Any]:
        """Return it for JSON; what was not measured is null, with the reason beside it."""
        manifest, machine = self.manifest, self.machine
        return {
            "release": {
                "device_class": manifest.device_class,
                "version": manifest.version,
                "task": manifest.task,
                "student": manifest.student,
                "artifact": manifest.artifact,
            },
            "machine": {
                "model": machine.model,
                "architecture": machine.architecture,
                "cores": machine.cores,
                "memory_mb": machine.memory_mb,
                "emulated": machine.emulated,
            },
            "data": {"source": self.source, "seed": self.seed} if self.known else None,
            "data_missing": None if self.known else NO_DATA,
            "power_missing": self.no_power or None,
            "files": {
                name: {**asdict(found), "knowledge": asdict(self.known[name]) if name in self.known else None}
                for name, found in self.costs.items()
            },
        }


def evaluate(
    folder: Path,
    trust: Trust,
    now: datetime | None,
    data: Path | None,
    effort: Effort,
    seed: int,
    tell: Callable[[str], None],
) -> Evaluated:
    """Verify a release, then measure each of its models.

    Args:
        folder: the release.
        trust: the trusted root.
        now: to check expiry with; None: it was installed, expiry does not matter.
        data: see `client.evaluate.labelled`; None: no accuracy is measured.
        effort: how long it takes.
        seed: of the disturbances.
        tell: told what is measured next.

    Raises:
        ReleaseError: the release is not to be trusted, or a model fails its self-test, crashes or hangs.
        ConfigError: the data's description can't be used, or a sensor can't be read any more.
        DataError: the data can't be used.
    """
    manifest, _ = verify_folder(folder, trust, now)
    names = sorted(manifest.self_test.expected, key=lambda name: name != manifest.artifact)
    if not names or not manifest.self_test.shape[0]:
        raise ReleaseError(f"{folder}: its manifest holds no self-test")
    source, samples = labelled(data, manifest) if data is not None else ("", None)
    meter, reason = energy.find()
    costs: dict[str, Cost] = {}
    known: dict[str, Knowledge] = {}
    for name in names:
        model = Model(
            folder / name, manifest.input.normalization, len(manifest.label_names), manifest.self_test.pixels()
        )
        try:
            tell(f"{name}: self-test and benchmark")
            self_test(folder, manifest, name)
            found, own = measure(model, effort, meter, samples, seed)
        except ReleaseError as error:
            if name == manifest.artifact:
                raise
            tell(f"left out: {error}")  # as on a device, which then never chooses it
            continue
        costs[name] = found
        if own is not None:
            known[name] = own
    return Evaluated(manifest, probe.look(), costs, known, source, seed, reason)
