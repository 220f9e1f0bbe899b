"""Methods: the product under its name, and each baseline as an overlay that is laid over a scenario.

An overlay is a part of a scenario file, and may name sections that a method does `without`. What it does not set stays:
data, partition, seed, devices, rounds, students and steps are the scenario's, so that methods differ by what they are.
What the product has of its own (a certainty, an anchor, a temperature of the digest, labels that last, deltas) an
overlay sets to what its method has, as a scenario may have set it for the product.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fedstill.config import read_toml
from fedstill.errors import ConfigError
from fedstill.loading import nearest
from fedstill.tasks import load_task
from simulations.scenario import FOLDER, Scenario, raw_scenario, resolved

OWN = "fedstill"
OVERLAYS = FOLDER / "baselines"


def methods() -> list[str]:
    """Return the names of all methods."""
    return sorted([OWN, *(path.stem for path in OVERLAYS.glob("*.toml"))])


def load_method(scenario: str, method: str, changes: Iterable[str] = ()) -> Scenario:
    """Load a scenario as a method runs it.

    A method whose devices all hold one architecture gets that of the smallest of the scenario's students, as every
    device has to hold it; give all device classes another one by `device_classes.<class>.student`.

    Args:
        scenario: a built-in name or a path that ends in `.toml`.
        method: a name of `methods()`.
        changes: assignments such as `partition.alpha=0.1`; they have the last word, but where they are about a section
            that the method is without.

    Raises:
        ConfigError: unknown scenario, method or key, with the nearest valid one, or a value out of range.
    """
    if method not in methods():
        raise ConfigError(f"unknown method {method!r}; {nearest(method, methods())}")
    raw = raw_scenario(scenario)
    if method == OWN:
        return resolved(raw, changes, f"scenario {scenario}")
    overlay = read_toml(OVERLAYS / f"{method}.toml")
    homogeneous = overlay["method"].pop("homogeneous", False)
    without = overlay.pop("without", [])
    for section in without:
        raw.pop(section, None)
    raw = merged(raw, overlay)
    changes = [change for change in changes if re.split("[.=]", change)[0].strip() not in without]
    raw["name"] = f"{raw.get('name', '')}-{method}"
    found = resolved(raw, changes, f"scenario {scenario}, method {method}")
    if found.device.digest is None and found.device.certainty != "background" and not found.method.server:
        raise ConfigError(
            f"scenario {scenario}, method {method}: device.digest is missing, without which devices learn nothing from "
            "the consensus; for example --set 'device.digest={epochs=1, learning_rate=0.01}'"
        )
    return _homogeneous(found) if homogeneous else found


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `overlay` in their places, section by section."""
    result = dict(base)
    for key, value in overlay.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def _homogeneous(scenario: Scenario) -> Scenario:
    students = {kind.student for kind in scenario.device_classes.values()}
    if len(students) > 1:
        from fedstill.learning import build, parameters  # with torch, which the other methods' scenarios do without
        from fedstill.models import architecture

        task = load_task(scenario.task)
        sizes = {name: parameters(build(architecture(name), task, seed=0)) for name in students}
        smallest = min(sorted(sizes), key=lambda name: sizes[name])
        kinds = {name: kind.model_copy(update={"student": smallest}) for name, kind in scenario.device_classes.items()}
        scenario = scenario.model_copy(update={"device_classes": kinds})
    return scenario.model_copy(update={"method": scenario.method.model_copy(update={"homogeneous": True})})
