import json
from pathlib import Path

import pytest

from simulations.how import Engine, How
from simulations.launch import launch, prepare
from simulations.methods import load_method


def summary_of(method: str, options: list[str], out: Path) -> dict[str, dict[str, dict[str, float | None]]]:
    prepare(load_method("digits", method, options), out)
    launch(out, How(Engine.local, 1, 1, table=False))
    found: dict[str, dict[str, dict[str, float | None]]] = json.loads((out / "summary.json").read_text())
    return found


def test_local_only_exchanges_nothing_and_is_the_reference_of_a_federated_run(
    small_options: list[str], tmp_path: Path
) -> None:
    options = small_options[1::2]
    alone = summary_of("local-only", options, tmp_path / "alone")
    federated = summary_of("fedstill", options, tmp_path / "federated")
    assert not any(alone["wire"].values())
    for name, facts in alone["device_classes"].items():
        assert facts["accuracy_devices"] == pytest.approx(federated["device_classes"][name]["accuracy_local_only"])
        assert facts["accuracy_local_only"] == facts["accuracy_devices"]
        assert facts["accuracy_released_fp32"] is None


def test_centralized_is_the_ceiling_of_a_federated_run(small_options: list[str], tmp_path: Path) -> None:
    options = small_options[1::2]
    central = summary_of("centralized", options, tmp_path / "central")
    federated = summary_of("fedstill", options, tmp_path / "federated")
    assert not any(central["wire"].values())
    released = [facts["accuracy_released_fp32"] for facts in central["device_classes"].values()]
    assert max(score for score in released if score is not None) == pytest.approx(federated["central"]["accuracy"])
