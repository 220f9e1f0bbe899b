"""Markdown tables of the scenarios' results: `python -m benchmarks.tables` prints what docs/results.md shows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
SCENARIOS = tuple(sorted(path.parent.name for path in FOLDER.glob("*/seeds.json")))
HEADER = (
    "class",
    "student",
    "parameters",
    "local-only",
    "teacher-only",
    "devices",
    "released fp32",
    "released int8",
    "gain",
    "fp32 → int8, kB",
    "up / down, kB",
    "FedAvg, kB",
)


def _percent(mean: Mapping[str, Any], std: Mapping[str, Any], key: str) -> str:
    return f"{100 * mean[key]:.1f} ± {100 * std[key]:.1f}"


def table(seeds: Mapping[str, Any]) -> str:
    """Return the table of one scenario's `seeds.json`: mean and sample deviation, accuracies in percent."""
    rows = [HEADER, tuple("---" for _ in HEADER)]
    gains = seeds["derived"]["mean"]["federation_gain"], seeds["derived"]["std"]["federation_gain"]
    for name, mean in seeds["mean"]["device_classes"].items():
        std = seeds["std"]["device_classes"][name]
        accuracies = [
            _percent(mean, std, f"accuracy_{kind}")
            for kind in ("local_only", "teacher_only", "devices", "released_fp32", "released")
        ]
        rows.append(
            (
                name,
                mean["student"],
                f"{mean['parameters']:,.0f}",
                *accuracies,
                f"**{100 * gains[0][name]:+.1f}** ± {100 * gains[1][name]:.1f}",
                f"{mean['onnx_fp32_bytes'] / 1000:.0f} → {mean['onnx_bytes'] / 1000:.0f}",
                f"{mean['uplink_bytes_per_round'] / 1000:.1f} / {mean['downlink_bytes_per_round'] / 1000:.1f}",
                f"{mean['fedavg_bytes_per_round'] / 1000:.0f}",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def facts(seeds: Mapping[str, Any]) -> str:
    """Return the line below a table: teacher, ceiling, share of the gap closed, seeds and commit."""
    mean, std, derived = seeds["mean"], seeds["std"], seeds["derived"]
    before, after = (_percent(mean["teacher"], std["teacher"], f"accuracy_{when}") for when in ("initial", "final"))
    return (
        f"Teacher {before} → {after}, "
        f"central ceiling {_percent(mean['central'], std['central'], 'accuracy')}, gap closed "
        f"{100 * derived['mean']['gap_closed']:.0f} ± {100 * derived['std']['gap_closed']:.0f} %. "
        f"Seeds {', '.join(map(str, seeds['seeds']))}; {mean['rounds']:.0f} rounds; commit `{mean['commit'][:10]}`; "
        f"{mean['timing']['wall_seconds']:.0f} s a run beside other work, {mean['peak_rss_bytes'] / 1e9:.1f} GB."
    )


def stored(scenario: str) -> dict[str, Any]:
    """Return the stored `seeds.json` of a scenario."""
    seeds: dict[str, Any] = json.loads((FOLDER / scenario / "seeds.json").read_text())
    return seeds


def main() -> None:
    """Print all tables."""
    for scenario in SCENARIOS:
        seeds = stored(scenario)
        print(f"## {scenario}\n\n{table(seeds)}\n\n{facts(seeds)}\n")


if __name__ == "__main__":
    main()
