"""`summary.json`: the contract for scripts, always of one seed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fedstill.learning import build, parameters, state_of
from fedstill.models import architecture
from fedstill.rounds import Traffic
from fedstill.tasks import load_task
from simulations import telemetry
from simulations.run_folder import commit
from simulations.setup import Setup

if TYPE_CHECKING:  # see simulations.release
    from server.release.student import Released

FLOAT_BYTES = 4


class Learned(Protocol):
    """What any method leaves."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """A row of metrics per finished round."""

    @property
    def seconds(self) -> float:
        """Time spent in rounds."""


def _models_of_fedavg(setup: Setup, rows: Sequence[Mapping[str, Any]], name: str, devices: int) -> float:
    """Return how many models FedAvg would have sent for a class: one to each device asked, one back if it answers."""
    scenario = setup.scenario
    if scenario.fleet is None:
        return 2 * devices * scenario.rounds * (scenario.exchange.active or scenario.devices) / scenario.devices
    found = [row["virtual"]["device_classes"][name] for row in rows]
    return float(sum(2 * own["asked"] - own["failed"] for own in found))


def summarize(
    setup: Setup,
    known: Learned,
    traffic: Traffic,
    references: Mapping[str, float],
    released: "Mapping[str, Released]",
    proxy_file_bytes: int,
    teacher_initial: float | None,
    wall_seconds: float,
    peak_rss_bytes: int,
) -> dict[str, Any]:
    """Return the summary of a finished run.

    Args:
        setup: the run.
        known: what the run learned.
        traffic: its bytes.
        references: accuracies by `central.<class>`, `teacher_only.<class>`, `local_only.<device>`; what is missing
            was not measured, and is null.
        released: what is known of each class's release; a class without one has null there.
        proxy_file_bytes: size of the proxy set's file, which each device downloads once.
        teacher_initial: accuracy of the initial teacher; None: there is no teacher.
        wall_seconds: of all processes that worked on the run.
        peak_rss_bytes: maximum over time of the process tree's PSS, in any of them.
    """
    scenario = setup.scenario
    classes = scenario.classes_of_devices()
    last = known.rows[-1]
    field = telemetry.facts(scenario, setup.out)
    by_class: dict[str, Any] = {}
    for name, kind in scenario.device_classes.items():
        devices = [number for number, own in enumerate(classes) if own == name]
        facts = released.get(name)
        model = build(architecture(kind.student), load_task(scenario.task), seed=0)
        values = sum(tensor.numel() for tensor in state_of(model).values() if tensor.is_floating_point())
        alone = [references[key] for number in devices if (key := f"local_only.{number}") in references]
        per_round = len(devices) * scenario.rounds
        by_class[name] = {
            "devices": len(devices),
            "student": kind.student,
            "learner": kind.learner,
            "parameters": parameters(model),
            "accuracy_local_only": float(np.mean(alone)) if alone else None,
            "accuracy_teacher_only": references.get(f"teacher_only.{name}"),
            "accuracy_devices": last["device_accuracy"][name],
            "accuracy_released_fp32": facts.accuracy_fp32 if facts else None,
            "accuracy_released": facts.accuracy_int8 if facts else None,
            "device_steps": sum(row["device_steps"][name] for row in known.rows),
            "device_samples": sum(row["device_samples"][name] for row in known.rows),
            "onnx_fp32_bytes": facts.onnx_fp32_bytes if facts else None,
            "onnx_bytes": facts.onnx_bytes if facts else None,
            "latency_ms_p50": facts.latency_ms if facts else None,
            "latency_fp32_ms_p50": facts.latency_fp32_ms if facts else None,
            "uplink_bytes_per_round": sum(traffic.uplink.get(number, 0) for number in devices) / per_round,
            "downlink_bytes_per_round": sum(traffic.downlink.get(number, 0) for number in devices) / per_round,
            # FedAvg sends all parameters and buffers, as float32.
            "fedavg_bytes_per_round": FLOAT_BYTES
            * values
            * _models_of_fedavg(setup, known.rows, name, len(devices))
            / per_round,
            "artifact": f"students/{name}/{facts.artifact}" if facts else None,
            "format": facts.format if facts else None,
            "refused": facts.refused if facts else None,
            "robustness": facts.robustness if facts else None,
            **field[name],
        }
    central = [value for key, value in references.items() if key.startswith("central.")]
    initial = {"accuracy_initial": teacher_initial, "accuracy_final": last["teacher_accuracy"]}
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "engine": setup.engine,
        "commit": commit(),
        "teacher": None if teacher_initial is None else initial,
        "central": {"accuracy": max(central, default=None)},
        "wire": {
            "uplink_bytes": sum(traffic.uplink.values()),
            "downlink_bytes": sum(traffic.downlink.values()),
            "messages": traffic.messages,
            "envelope_bytes": traffic.envelope_bytes,
            "proxy_bytes": proxy_file_bytes * scenario.devices,
        },
        "device_classes": by_class,
        "timing": {"wall_seconds": wall_seconds, "rounds_seconds": known.seconds},
        "peak_rss_bytes": peak_rss_bytes,
    }
