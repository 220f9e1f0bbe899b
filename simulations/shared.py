"""References that several runs share: the methods of a comparison differ in little that local or central training sees.

A reference is kept under a digest of all that it depends on, so that two runs share it exactly if they would compute
the same.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedstill.files import write_json
from fedstill.learning import State
from simulations.scenario import Scenario


def key_of_local_only(scenario: Scenario, number: int, rounds: Sequence[int]) -> str:
    """Return what the local training of a device depends on: data, its rounds, its student and the revisit."""
    kind = scenario.device_classes[scenario.class_of(number)]
    device = scenario.device.model_dump(include={"revisit", "logit_adjustment", "prior_floor"})
    # A device's stream is drawn over all of the run's rounds, its schedules of a round know nothing of the others.
    return _key("local_only", _data(scenario), number, kind.student, device, scenario.rounds, list(rounds))


def key_of_central(scenario: Scenario, student: str) -> str:
    """Return what training an architecture on all data depends on."""
    return _key("central", _data(scenario), student, scenario.central.fit.model_dump())


def key_of_teacher_only(scenario: Scenario, student: str, architecture: str, teacher: State) -> str:
    """Return what distilling the initial teacher into an architecture depends on.

    Args:
        scenario: the scenario.
        student: architecture of the student.
        architecture: the teacher's.
        teacher: the initial teacher.
    """
    digest = hashlib.sha256()
    for name in sorted(teacher):
        digest.update(name.encode() + teacher[name].numpy().tobytes())
    students = scenario.students.model_dump(include={"distil", "last", "temperature", "adaptation"})
    return _key("teacher_only", _data(scenario), student, architecture, digest.hexdigest(), students, scenario.rounds)


def _data(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(include={"task", "seed", "devices", "data", "partition", "stream"})


def _key(kind: str, *parts: Any) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]}"


class SharedReferences:
    """Accuracies by key, a file each.

    Args:
        folder: where they lie; None: nothing is shared.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> float | None:
        """Return the accuracy under a key, None where nobody has computed it yet."""
        if self._folder is None or not (path := self._folder / f"{key}.json").exists():
            return None
        return float(json.loads(path.read_text()))

    def put(self, key: str, accuracy: float) -> None:
        """Keep an accuracy for other runs."""
        if self._folder is not None:
            write_json(self._folder / f"{key}.json", accuracy)
