"""`summary.json`: the contract for scripts, always of one seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedstill.rounds import Traffic
from server.federation import Knowledge
from server.release.student import INT8_FILE, Released
from simulations.run_folder import commit
from simulations.setup import Setup

FLOAT_BYTES = 4


def summarize(
    setup: Setup,
    known: Knowledge,
    traffic: Traffic,
    references: Mapping[str, float],
    released: Mapping[str, Released],
    proxy_file_bytes: int,
    teacher_initial: float,
    wall_seconds: float,
    peak_rss_bytes: int,
) -> dict[str, Any]:
    """Return the summary of a finished run.

    Args:
        setup: the run.
        known: what the federation learned.
        traffic: its bytes.
        references: accuracies by `central.<class>`, `teacher_only.<class>`, `local_only.<device>`.
        released: what is known of each class's release.
        proxy_file_bytes: size of the proxy set's file, which each device downloads once.
        teacher_initial: accuracy of the initial teacher.
        wall_seconds: of this process.
        peak_rss_bytes: maximum over time of the process tree's PSS.
    """
    scenario = setup.scenario
    classes = scenario.classes_of_devices()
    last = known.rows[-1]
    by_class: dict[str, Any] = {}
    for name, kind in scenario.device_classes.items():
        devices = [number for number, own in enumerate(classes) if own == name]
        facts = released[name]
        per_round = len(devices) * scenario.rounds
        by_class[name] = {
            "devices": len(devices),
            "student": kind.student,
            "parameters": facts.parameters,
            "accuracy_local_only": float(np.mean([references[f"local_only.{number}"] for number in devices])),
            "accuracy_teacher_only": references[f"teacher_only.{name}"],
            "accuracy_devices": last["device_accuracy"][name],
            "accuracy_released_fp32": facts.accuracy_fp32,
            "accuracy_released": facts.accuracy_int8,
            "onnx_fp32_bytes": facts.onnx_fp32_bytes,
            "onnx_bytes": facts.onnx_bytes,
            "latency_ms_p50": facts.latency_ms,
            "latency_fp32_ms_p50": facts.latency_fp32_ms,
            "uplink_bytes_per_round": sum(traffic.uplink.get(number, 0) for number in devices) / per_round,
            "downlink_bytes_per_round": sum(traffic.downlink.get(number, 0) for number in devices) / per_round,
            # FedAvg sends all parameters and buffers up and down once a round, as float32.
            "fedavg_bytes_per_round": 2 * FLOAT_BYTES * state_values(known, name),
            "artifact": f"students/{name}/{INT8_FILE}",
            "refused": facts.refused,
            "robustness": facts.robustness,
        }
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "rounds": scenario.rounds,
        "engine": setup.engine,
        "commit": commit(),
        "teacher": {"accuracy_initial": teacher_initial, "accuracy_final": last["teacher_accuracy"]},
        "central": {"accuracy": max(value for key, value in references.items() if key.startswith("central."))},
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


def state_values(known: Knowledge, name: str) -> int:
    """Return how many floating-point values a class student's state has: what FedAvg would have to send."""
    return sum(tensor.numel() for tensor in known.students[name].values() if tensor.is_floating_point())
