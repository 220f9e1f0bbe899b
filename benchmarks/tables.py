"""Markdown tables of the scenarios' results: `python -m benchmarks.tables` prints what docs/results.md shows."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
METHODS = ("method", "released fp32", "worst class", "best round", "devices", "kB up", "kB down")
COMPARED = tuple(sorted(path.parent.name for path in FOLDER.glob("*/compare.json")))


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and sample deviation in words; of one value there is no deviation, and a dash of none."""
    if not values:
        return "—"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def _percent(seeds: Mapping[str, Any], *keys: str) -> str:
    """Return a share in percent with its deviation, which a single seed has not."""
    mean, std = seeds["mean"], seeds["std"]
    for key in keys:
        mean, std = mean[key], std[key]
    return _share(mean, std, seeds["seeds"])


def _share(mean: float | None, std: float, seeds: Sequence[int]) -> str:
    if mean is None:
        return "—"
    deviation = f" ± {100 * std:.1f}" if len(seeds) > 1 else ""
    return f"{100 * mean:.1f}{deviation}"


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _derived(seeds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived figures in the form of `seeds.json`."""
    return {**seeds["derived"], "seeds": seeds["seeds"]}


def table(seeds: Mapping[str, Any]) -> str:
    """Return the table of one scenario's `seeds.json`: mean and sample deviation, accuracies in percent."""
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for name, mean in seeds["mean"]["device_classes"].items():
        accuracies = [
            _percent(seeds, "device_classes", name, f"accuracy_{kind}")
            for kind in ("local_only", "teacher_only", "devices", "released_fp32", "released")
        ]
        gain = _percent(_derived(seeds), "federation_gain", name)
        rows.append(
            (
                name,
                mean["student"],
                f"{mean['parameters']:,.0f}",
                *accuracies,
                gain if gain.startswith("-") else f"+{gain}",
                f"{mean['onnx_fp32_bytes'] / 1000:.0f} → {mean['onnx_bytes'] / 1000:.0f}",
                f"{mean['uplink_bytes_per_round'] / 1000:.1f} / {mean['downlink_bytes_per_round'] / 1000:.1f}",
                f"{mean['fedavg_bytes_per_round'] / 1000:.0f}",
            )
        )
    return _markdown(rows)


def facts(seeds: Mapping[str, Any]) -> str:
    """Return the line below a table: teacher, ceiling, share of the gap closed, seeds and commit."""
    mean = seeds["mean"]
    ceiling = f"central ceiling {_percent(seeds, 'central', 'accuracy')}"
    first = f"No teacher, {ceiling}"
    if mean["teacher"] is not None:
        before, after = (_percent(seeds, "teacher", f"accuracy_{when}") for when in ("initial", "final"))
        gap = _percent(_derived(seeds), "gap_closed")
        first = f"Teacher {before} → {after}, {ceiling}, gap closed {gap} %"
    return (
        f"{first}. "
        f"Seeds {', '.join(map(str, seeds['seeds']))}; {mean['rounds']:.0f} rounds; {_commit(mean.get('commit'))}; "
        f"{mean['timing']['wall_seconds']:.0f} s a run beside other work, {mean['peak_rss_bytes'] / 1e9:.1f} GB."
    )


def methods(found: Mapping[str, Any]) -> str:
    """Return the table of a stored `compare.json`: mean and sample deviation, percent, kB of all devices and rounds."""
    rows = [METHODS, ("---", *(("---:",) * (len(METHODS) - 1)))]
    keys = ("accuracy", "accuracy_worst_class", "accuracy_best_round", "accuracy_devices")
    for method in found["methods"]:
        accuracies = [_share(method[key]["mean"], method[key]["std"], found["seeds"]) for key in keys]
        sent = [f"{method[f'{way}_bytes']['mean'] / 1000:,.0f}" for way in ("uplink", "downlink")]
        name = f"{method['method']} (weights)" if method["sends_weights"] else method["method"]
        rows.append((name, *accuracies, *sent))
    return _markdown(rows)


def _commit(found: str | None) -> str:
    """Return the commit that all seeds agree on, as the page names it."""
    if found is None:
        return "commits by seed in its summary"
    plain = found.removesuffix("+dirty")
    return f"commit `{plain[:10]}{found[len(plain) :]}`"


def stored(scenario: str) -> dict[str, Any]:
    """Return the stored `seeds.json` of a scenario."""
    seeds: dict[str, Any] = json.loads((FOLDER / scenario / "seeds.json").read_text())
    return seeds


def main() -> None:
    """Print all tables."""
    for scenario in SCENARIOS:
        seeds = stored(scenario)
        print(f"## {scenario}\n\n{table(seeds)}\n\n{facts(seeds)}\n")
    for name in COMPARED:
        print(f"## {name}\n\n{methods(json.loads((FOLDER / name / 'compare.json').read_text()))}\n")


if __name__ == "__main__":
    main()
