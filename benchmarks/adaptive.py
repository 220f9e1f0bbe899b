"""Distillation that follows the student's state against fixed and scheduled temperatures, with the same steps.

`python -m benchmarks.adaptive RUN... [--json] [--classes pi5 mcu]` takes the soft labels that finished runs end with,
one run per seed, and distils each class's student anew from them in each way: a fresh student, the run's own rounds
and fits, so all ways take exactly the same steps. Parameters are those of the papers; nothing is chosen by the test
set, on which each is measured once.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedstill.settings import AdaptationSettings, StudentSettings, TemperatureSettings
from fedstill.workers import prepare_torch
from server import students
from server.federation import measure
from simulations.compress.finished import Finished, open_run

FIXED = {f"fixed T = {value:g}": TemperatureSettings(start=value) for value in (1, 2, 4)}
SCHEDULED = {
    f"{kind} 4 to 1": TemperatureSettings(schedule=kind, start=4, end=1) for kind in ("linear", "exponential", "cosine")
}
ADAPTIVE = {
    "standardized, tau = 2": ("standardized", 2.0),
    "weighted, T = 2": ("weighted", 2.0),
    "curriculum, from T = 1": ("curriculum", 1.0),
}


def ways(own: StudentSettings) -> dict[str, StudentSettings]:
    """Return each way to distil, which differ in the loss alone."""
    plain = {
        name: {"temperature": found, "adaptation": AdaptationSettings()} for name, found in (FIXED | SCHEDULED).items()
    }
    adaptive = {
        name: {
            "temperature": TemperatureSettings(start=temperature),
            "adaptation": AdaptationSettings.model_validate({"method": method}),
        }
        for name, (method, temperature) in ADAPTIVE.items()
    }
    return {name: own.model_copy(update=change) for name, change in (plain | adaptive).items()}


def distilled(run: Finished, name: str, settings: StudentSettings) -> float:
    """Return the test accuracy of a class's student, distilled over all rounds from a run's last labels."""
    scenario, shelf = run.scenario, run.shelf
    student = scenario.device_classes[name].student
    state = students.initial(scenario.task, student, scenario.seed)
    images = shelf.proxy[run.ids]
    for number in range(1, scenario.rounds + 1):
        state = students.distil(
            scenario.task, student, settings, state, images, run.labels, number, scenario.rounds, scenario.seed
        )
    return measure(scenario.task, student, state, shelf.test)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return a Markdown table of `{way: {class: accuracy by seed}}`, in percent, and the mean over the classes."""
    classes = list(next(iter(found.values())))
    lines = ["| distillation | " + " | ".join((*classes, "mean")) + " |", "|" + " --- |" * (len(classes) + 2)]
    for way, by_class in found.items():
        values = [by_class[name] for name in classes]
        cells = [_cell(one) for one in (*values, np.mean(values, axis=0).tolist())]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--classes", nargs="*", help="device classes [default: all]")
    parser.add_argument("--json", action="store_true", help="print accuracies by way, class and seed")
    options = parser.parse_args()
    prepare_torch()
    torch.use_deterministic_algorithms(True)
    found: dict[str, dict[str, list[float]]] = {}
    seeds: list[int] = []
    for run in map(open_run, options.runs):
        scenario = run.scenario
        seeds.append(scenario.seed)
        for way, settings in ways(scenario.students).items():
            for name in options.classes or scenario.device_classes:
                accuracy = distilled(run, name, settings)
                found.setdefault(way, {}).setdefault(name, []).append(accuracy)
                print(f"seed {scenario.seed}, {name}, {way}: {accuracy:.4f}", file=sys.stderr, flush=True)
    answer: dict[str, Any] = {"scenario": scenario.name, "seeds": seeds, "accuracy": found}
    print(json.dumps(answer, indent=2) if options.json else f"{scenario.name}, seeds {seeds}\n\n{table(found)}")


if __name__ == "__main__":
    main()
