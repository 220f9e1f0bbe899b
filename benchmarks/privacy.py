"""What a device's packets tell about who is in its private data: membership inference, measured.

The attacker is the server, honest but curious: it runs the protocol as it is, keeps all packets, and wants to know of a
sample whether a device holds it. The worst case is measured: the server chose the proxy set, so that it holds the very
samples in question, and knows their labels. Copies of a part of each device's private samples (members) lie in the
proxy set beside samples that no device holds (others). What a device is asked about it has just not digested, so its
packets show its student right after it trained on its own data.

The question is the harder one: members against unseen samples *of the same classes in the same shares*. That a device
with mostly threes knows threes is no membership, and is told to the server by its class shares anyway.

Scores of a sample at a device, means over the packets that speak of it:

* label: phi = log p(y) / (1 - p(y)) of the true class y, the loss attack (Yeom et al. 2018, arXiv 1709.01604);
* calibrated: (phi - mean) / deviation of phi at the other devices, which don't hold the sample: the offline likelihood
  ratio attack (Carlini et al. 2022, arXiv 2112.03570) with the federation's own devices as shadow models;
* confidence: the largest probability, for an attacker who does not know the label;
* certainty: what the device claims, where it claims something;
* speech: how often it did not abstain, where it ever abstains.

Of each: AUC (0.5 is chance), and the share of members found at a false alarm rate of 1 % and of 0.1 %, as an attack may
be right about few and sure of them. All devices hold the same architecture, `pi4`'s, which favours the attacker.

`python -m benchmarks.privacy [digits|mnist] [--seeds 0 1 2] [--data-dir DATA_DIR] --out FOLDER` runs every form of
packets with every seed and writes results, table and configuration to the folder after each seed.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.label_cache import rounds_of
from fedstill.files import write_atomic, write_json
from fedstill.packet import decode
from fedstill.rng import stream
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import Bools, Ints, SoftLabels
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from simulations.run_folder import commit
from simulations.scenario import Scenario, dump, load_scenario
from simulations.shelf import Shelf, open_shelf, split

Floats64 = np.ndarray[tuple[int], np.dtype[np.float64]]
CLASS = "pi4"
SAMPLES = ("rounds=3", "devices=10", "exchange.per_round=240", "data.proxy_samples=300", "data.private_samples=440")
CHANGES: Mapping[str, tuple[str, ...]] = {
    "digits": (*SAMPLES, "teacher.initial.epochs=30", "students.distil.epochs=4"),
    "mnist": (*SAMPLES, "teacher.architecture='strided-conv-l'", "teacher.initial.epochs=20"),
}
FORMS: Mapping[str, tuple[str, ...]] = {
    "float16": ("exchange.uplink='float16'",),
    "simplex8": ("exchange.uplink='simplex8'",),
    "simplex1": ("exchange.uplink='simplex1'",),
    "simplex8, certainty by background": ("exchange.uplink='simplex8'", "device.certainty='background'"),
    "simplex8, certainty by k-means": ("exchange.uplink='simplex8'", "device.certainty='k-means'"),
    "simplex8, silent outside its k-means": (
        "exchange.uplink='simplex8'",
        "device.certainty='k-means'",
        "device.send_certainty=false",
        "device.abstain_below=0.1",
    ),
    "simplex1, certainty by background": ("exchange.uplink='simplex1'", "device.certainty='background'"),
    "simplex1, certainty by k-means": ("exchange.uplink='simplex1'", "device.certainty='k-means'"),
}
PER_DEVICE = 20  # members of each device whose copies are in the proxy set, at most
SMALLEST = 1e-3  # probability below which a vote is no surer that a class is not the sample's
DEVIATION = 0.5  # of phi at the other devices, at least
RATES = (0.01, 0.001)


@dataclass(frozen=True)
class Candidates:
    """The proxy samples in question.

    Attributes:
        labels: true classes of the proxy set `[proxy]`.
        members: those of them that each device holds, by device.
        others: those that nobody holds `[others]`.
    """

    labels: Ints
    members: Mapping[int, Ints]
    others: Ints

    def pairs(self, device: int, asked: Bools) -> tuple[Ints, Ints, Floats64]:
        """Return members, the others of their classes, and the weights that give these the same shares.

        Args:
            device: whose members.
            asked: proxy samples that packets speak of `[proxy]`.
        """
        own, others = self.members[device], self.others
        own, others = own[asked[own]], others[asked[others]]
        others = others[np.isin(self.labels[others], self.labels[own])]
        own = own[np.isin(self.labels[own], self.labels[others])]
        wanted, there = (np.bincount(self.labels[ids], minlength=self.labels.max() + 1) for ids in (own, others))
        return own, others, wanted[self.labels[others]] / there[self.labels[others]]


def scenario_of(name: str, changes: Sequence[str]) -> Scenario:
    """Return a scenario with one device class."""
    found = load_scenario(name, changes)
    return found.model_copy(update={"device_classes": {CLASS: found.device_classes[CLASS]}})


def bait(scenario: Scenario, folder: Path) -> tuple[Shelf, Candidates]:
    """Split a scenario's data, and lay copies of private samples into the proxy set."""
    files = split(scenario)
    arrays = load_task(scenario.task).load(Path(scenario.data.dir) if scenario.data.dir else None)
    known = {image.tobytes(): label for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)}
    labels = [known[image.tobytes()] for image in files["proxy-images"]]
    images, members = [files["proxy-images"]], {}
    for device in range(scenario.devices):
        rng = stream(scenario.seed, "members", device)
        rows = np.sort(rng.permutation(files[f"part-{device}"])[:PER_DEVICE])
        members[device] = np.arange(len(labels), len(labels) + len(rows))
        labels += files["private-labels"][rows].tolist()
        images.append(files["private-images"][rows])
    others = np.arange(len(files["proxy-images"]))
    files["proxy-images"] = np.concatenate(images)
    return open_shelf(folder, scenario, files), Candidates(np.array(labels, dtype=np.int64), members, others)


def scores(packets: Mapping[int, Sequence[SoftLabels]], labels: Ints) -> dict[str, Floats64]:
    """Return each attack's scores `[devices, proxy]`, high for members: NaN where nothing was asked.

    Where a device was asked and kept silent, the lowest score of all. Attacks that the packets don't feed are left out.

    Args:
        packets: what each device sent, by device from 0.
        labels: true classes `[proxy]`.
    """
    shape = len(packets), len(labels)
    sums = {name: np.zeros(shape) for name in ("label", "confidence", "certainty", "speech")}
    asked, spoken = np.zeros(shape), np.zeros(shape)
    for device, said in packets.items():
        for packet in said:
            ids, rows = packet.ids, packet.probabilities
            there = packet.present
            truth = np.clip(rows[np.arange(len(ids)), labels[ids]], SMALLEST, 1 - SMALLEST)
            sums["label"][device, ids] += np.where(there, np.log(truth / (1 - truth)), 0)
            sums["confidence"][device, ids] += np.where(there, rows.max(axis=1), 0)
            sums["certainty"][device, ids] += 0 if packet.certainty is None else packet.certainty
            sums["speech"][device, ids] += there
            asked[device, ids] += 1
            spoken[device, ids] += there
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {name: sums[name] / (spoken if name in ("label", "confidence") else asked) for name in sums}
    found["calibrated"] = _calibrated(found["label"])
    if all(packet.certainty is None for said in packets.values() for packet in said):
        del found["certainty"]
    if (spoken == asked).all():
        del found["speech"]
    for values in found.values():
        values[np.isnan(values)] = np.nanmin(values) - 1
        values[asked == 0] = np.nan
    return found


def _calibrated(phi: Floats64) -> Floats64:
    """Return phi against the other devices' mean and deviation, NaN where a device said nothing `[devices, proxy]`."""
    result = np.full_like(phi, np.nan)
    for device in range(len(phi)):
        others = np.delete(phi, device, axis=0)
        told = ~np.isnan(others)
        count = np.maximum(told.sum(axis=0), 1)
        mean = np.where(told, others, 0).sum(axis=0) / count
        deviation = np.sqrt((np.where(told, others - mean, 0) ** 2).sum(axis=0) / count)
        result[device] = (phi[device] - mean) / np.maximum(deviation, DEVIATION)
    return result


def curve(members: Floats64, others: Floats64, weights: Floats64) -> tuple[Floats64, Floats64]:
    """Return false alarm and hit rates at every threshold, from the highest, beginning with none.

    Args:
        members: scores of members.
        others: scores of the others.
        weights: of the others.
    """
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    order = np.argsort(others)
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    alarms = (below[-1] - below[np.searchsorted(others[order], thresholds)]) / below[-1]
    hits = 1 - np.searchsorted(np.sort(members), thresholds) / len(members)
    return np.concatenate([[0.0], alarms]), np.concatenate([[0.0], hits])


def auc(alarms: Floats64, hits: Floats64) -> float:
    """Return the area under a curve: the chance that a member scores above another, ties counting half."""
    return float(np.trapezoid(hits, alarms))


def hits_at(alarms: Floats64, hits: Floats64, rate: float) -> float:
    """Return the largest hit rate whose false alarm rate is at most `rate`."""
    return float(hits[alarms <= rate + 1e-12].max())


@dataclass(frozen=True)
class Trial:
    """What one run left: accuracies, and each attack's scores of members and others with their weights."""

    accuracy_released: float
    accuracy_devices: float
    attacks: Mapping[str, tuple[Floats64, Floats64, Floats64]]


def trial(scenario: Scenario) -> Trial:
    """Run a scenario with a baited proxy set, and attack its packets."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        shelf, candidates = bait(scenario, out / "assets")
        context = shelf.context(scenario.seed, load_task(scenario.task).classes)
        packets: dict[int, list[SoftLabels]] = {device: [] for device in range(scenario.devices)}

        def keep(answers: Mapping[int, DeviceAnswer]) -> None:
            for device, answer in answers.items():
                packets[device].append(decode(context, answer.packet).labels)

        last = rounds_of(scenario, out, keep)[-1]
    found = scores(packets, candidates.labels)
    asked: Bools = np.asarray(~np.isnan(found["label"]).any(axis=0))
    parts: dict[str, list[tuple[Floats64, Floats64, Floats64]]] = {}
    for attack, values in found.items():
        for device in candidates.members:
            own, others, weights = candidates.pairs(device, asked)
            parts.setdefault(attack, []).append((values[device, own], values[device, others], weights))
    joined = {
        attack: tuple(np.concatenate(column) for column in zip(*found, strict=True)) for attack, found in parts.items()
    }
    devices = [score for score in last["device_accuracy"].values() if score is not None]
    released = list(last["released_accuracy"].values())
    return Trial(float(np.mean(released)), float(np.mean(devices)), joined)  # type: ignore[arg-type]


def figures(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what a form's seeds say: AUC by seed, hit rates of all seeds' scores pooled."""
    attacks: dict[str, Any] = {}
    for name in trials[0].attacks:
        pooled = curve(*(np.concatenate([found.attacks[name][part] for found in trials]) for part in range(3)))
        attacks[name] = {
            "auc": [auc(*curve(*found.attacks[name])) for found in trials],
            **{f"hits_at_{rate}": hits_at(*pooled, rate) for rate in RATES},
        }
    return {
        "members": sum(len(found.attacks["label"][0]) for found in trials),
        "others": sum(len(found.attacks["label"][1]) for found in trials),
        "accuracy_released": [found.accuracy_released for found in trials],
        "accuracy_devices": [found.accuracy_devices for found in trials],
        "attacks": attacks,
    }


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """Return mean and sample deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{scale * statistics.mean(values):.{digits}f} ± {scale * deviation:.{digits}f}"


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| packets | released, % | devices, % | attack | AUC | hits at 1 % | at 0.1 % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form, facts in found.items():
        accuracies = [spread(facts[f"accuracy_{key}"], 100, 1) for key in ("released", "devices")]
        for place, (attack, values) in enumerate(facts["attacks"].items()):
            own = [form, *accuracies] if place == 0 else ["", "", ""]
            rates = [f"{100 * values[f'hits_at_{rate}']:.1f} %" for rate in RATES]
            lines.append("| " + " | ".join([*own, attack, spread(values["auc"]), *rates]) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every form with every seed, print a table, and write it with its configuration."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenario", nargs="?", default="digits", choices=sorted(CHANGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), metavar="FORM")
    parser.add_argument("--data-dir", default=os.environ.get("FEDSTILL_DATA_DIR", ""))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the scenario")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    prepare_torch()
    shared = [*CHANGES[options.scenario], *options.set]
    if options.scenario != "digits":
        shared.append(f"data.dir={json.dumps(options.data_dir)}")
    code = commit()
    trials: dict[str, list[Trial]] = {form: [] for form in options.forms}
    for place, seed in enumerate(options.seeds):
        for form in options.forms:
            trials[form].append(trial(scenario_of(options.scenario, [*shared, *FORMS[form], f"seed={seed}"])))
            area = auc(*curve(*trials[form][-1].attacks["calibrated"]))
            print(f"seed {seed}, {form}: AUC of the calibrated attack {area:.3f}", flush=True)
        found = {form: figures(own) for form, own in trials.items()}
        done = options.seeds[: place + 1]
        result = {"commit": code, "scenario": options.scenario, "seeds": done, "forms": found}
        write_json(options.out / "results.json", result)
        write_atomic(options.out / "table.md", table(found).encode())
        write_atomic(options.out / "config.toml", dump(scenario_of(options.scenario, shared)).encode())
    print(table(found), end="")


if __name__ == "__main__":
    main()
