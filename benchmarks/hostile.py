"""What hostile devices cost: attacks on the packets of a finished round, and on whole runs.

`python -m benchmarks.hostile replay RUN --data-dir DATA_DIR [--distil CLASS]` takes the honest packets of the newest
round from the devices' disks of a run, lets hostile devices change theirs, and makes each rule's consensus of them, in
seconds. The proxy samples' true labels score it: a diagnosis that no run can make, since a run never reads them. With
`--distil` the student of that device class learns the round's labels and is measured on the test set.

`python -m benchmarks.hostile runs mnist --data-dir DATA_DIR --out FOLDER [--rules A B] [--seeds 0 1 2]
[--attacks "flip, false prior" ...]` runs the whole scenario for each rule, attack and seed with `fedstill simulate`;
runs that are finished are not repeated. A cell is the least accurate class's released fp32 student: mean and deviation
over the seeds, and beside it how much the attack costs, seed by seed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.finished import finished
from benchmarks.tables import spread
from client.disk import Disk, unpacked
from fedstill.cache import LabelCache
from fedstill.consensus import Rule, Votes, confidence_threshold, mixed, rules
from fedstill.errors import ConfigError, FedstillError
from fedstill.learning import State, predict, restored
from fedstill.models import architecture
from fedstill.packet import decode
from fedstill.soft_labels import Floats, Ints
from fedstill.tasks import load_task
from fedstill.workers import prepare_torch
from server import students
from server.checkpoints import STATE
from server.federation import measure
from simulations.attacks import AttackSettings, corrupt, hostile_devices
from simulations.run_folder import CONFIG
from simulations.scenario import Scenario, load_scenario
from simulations.shelf import Shelf

DEFAULT_RULES = ("mean", "class-experts", "reputable-experts")
HONEST = "none"
ATTACKS: dict[str, dict[str, Any]] = {
    HONEST: {"share": 0.0},
    "flip": {"kind": "flip"},
    "shuffle": {"kind": "shuffle"},
    "scale": {"kind": "scale"},
    "scale by -1": {"kind": "scale", "factor": -1.0},
    "random": {"kind": "random"},
}
PRIORS = ("uniform", "false")
NO_REFERENCES = ("references.local_only=0", "references.teacher_only=false", "references.central=false")


def attacks(share: float) -> Iterator[tuple[str, AttackSettings]]:
    """Yield each attack with its name."""
    for name, settings in ATTACKS.items():
        for prior in PRIORS[: 1 if name == HONEST else 2]:
            label = name if name == HONEST else f"{name}, {prior} prior"
            yield label, AttackSettings.model_validate({"share": share, "prior": prior, **settings})


def assignments(attack: AttackSettings) -> list[str]:
    """Return an attack as changes of a scenario, quoted: `false` is the name of a prior."""
    return [f"attack.{key}={json.dumps(value)}" for key, value in attack.model_dump().items()]


@dataclass(frozen=True)
class Stored:
    """The newest round of a run that all devices answered, and what its server knew before it."""

    scenario: Scenario
    shelf: Shelf
    round_number: int
    ids: Ints
    votes: Mapping[int, Any]
    checkpoint: Mapping[str, Any]
    teacher: Floats
    threshold: float

    def attacked(self, attack: AttackSettings) -> Votes:
        """Return the round's votes with the hostile devices' lies in place of their own answers."""
        scenario = self.scenario
        votes = dict(self.votes)
        for device in hostile_devices(attack, scenario.devices, scenario.seed):
            votes[device] = corrupt(attack, votes[device], scenario.seed, device, self.round_number)
        return Votes.stack(self.ids, votes, self.teacher, self.teacher.max(axis=1) < self.threshold)

    def consensus(self, rule: Rule, votes: Votes) -> Floats:
        """Return what the server would publish: the rule's labels with the teacher's share."""
        found = rule(votes)
        share = np.where(found.covered, self.scenario.consensus.teacher_weight, 1).astype(np.float32)
        return mixed(found.labels, self.teacher, share)

    def distilled(self, name: str, labels: Floats) -> float:
        """Return the test accuracy of a class's student after it has learned the round's labels."""
        scenario, student = self.scenario, self.scenario.device_classes[name].student
        old = LabelCache(self.checkpoint["labels"].numpy(), self.checkpoint["changed"].numpy(), self.round_number)
        cache = old.filled(self.ids, labels, self.round_number + 1)
        state: State = students.distil(
            scenario.task,
            student,
            scenario.students,
            self.checkpoint["students"][name],
            self.shelf.proxy[cache.known],
            cache.labels[cache.known],
            self.round_number,
            scenario.rounds,
            scenario.seed,
        )
        return measure(scenario.task, student, state, self.shelf.test)


def stored(run: Path) -> Stored:
    """Read the newest round of a run folder that has all devices' answers and the checkpoint before it."""
    scenario, shelf = load_scenario(str(run / CONFIG)), Shelf(run / "assets")
    if scenario.teacher is None:
        raise ConfigError(f"{run}: a replay needs a run with a teacher")
    task = load_task(scenario.task)
    context = shelf.context(scenario.seed, task.classes)
    folders = [run / "devices" / f"device-{number:05d}" for number in range(scenario.devices)]
    round_number = min(max(int(path.stem[6:]) for path in folder.glob("round-*.state")) for folder in folders)
    votes = {}
    for number, folder in enumerate(folders):
        content = unpacked(Disk(folder).path(round_number).read_bytes()).answer.packet
        votes[number] = decode(context, content, round_number=round_number).labels
    path = run / "checkpoints" / f"round-{round_number - 1:05d}" / STATE
    checkpoint = torch.load(path, weights_only=True)
    model = restored(architecture(scenario.teacher.architecture), task, checkpoint["teacher"])
    guard = predict(model, shelf.guard.images, task)
    threshold = confidence_threshold(guard, shelf.guard.labels, scenario.consensus.reputation.anchor_accuracy)
    ids = votes[0].ids
    teacher = predict(model, shelf.proxy[ids], task)
    return Stored(scenario, shelf, round_number, ids, votes, checkpoint, teacher, threshold)


def true_labels(found: Stored, data_dir: Path | None) -> Ints:
    """Return the classes of the round's proxy samples, for diagnosis alone: their images are in the task's data."""
    arrays = load_task(found.scenario.task).load(data_dir)
    known = {image.tobytes(): label for image, label in zip(arrays.train_images, arrays.train_labels, strict=True)}
    return np.array([known[image.tobytes()] for image in found.shelf.proxy[found.ids]], dtype=np.int64)


def replay(options: argparse.Namespace) -> None:
    """Print a table of consensus accuracy and negative log-likelihood, or of students' accuracy, by attack and rule."""
    prepare_torch()
    found = stored(options.run)
    truth = true_labels(found, options.data_dir)
    builtin = rules(found.scenario.consensus)

    def cell(rule: str, votes: Votes) -> str:
        labels = found.consensus(builtin[rule], votes)
        if options.distil:
            return f"{100 * found.distilled(options.distil, labels):.2f}"
        right = 100 * (labels.argmax(axis=1) == truth).mean()
        surprise = -np.log(np.maximum(labels[np.arange(len(truth)), truth], 1e-4)).mean()
        return f"{right:.2f} / {surprise:.2f}"

    scenario = found.scenario
    what = f"test accuracy of {options.distil}'s student" if options.distil else "consensus accuracy / nats"
    print(f"{scenario.name}, seed {scenario.seed}, round {found.round_number}, {options.share:.0%} hostile: {what}")
    _table(options, lambda rule, _, attack: cell(rule, found.attacked(attack)))


def runs(options: argparse.Namespace) -> None:
    """Run the scenario for each rule, attack and seed, and print the least accurate released student's accuracy."""
    honest = dict(attacks(options.share))[HONEST]

    def least(rule: str, name: str, attack: AttackSettings, seed: int) -> float:
        what = [Path(options.scenario).stem, f"{options.share:g}", rule, *name.replace(",", "").split()]
        out = options.out / "-".join([*what, "seed", str(seed)])
        changes = [f"consensus.rule={rule}", *NO_REFERENCES, *assignments(attack)]
        begin = ["--seed", str(seed)]
        summary = finished(out, options.scenario, changes, begin, data_dir=options.data_dir, log=sys.stderr)
        classes = summary["device_classes"].values()
        return 100 * min(float(facts["accuracy_released_fp32"]) for facts in classes)

    def cell(rule: str, name: str, attack: AttackSettings) -> str:
        reached = [least(rule, name, attack, seed) for seed in options.seeds]
        if name == HONEST:
            return spread(reached, digits=2)
        unharmed = [least(rule, HONEST, honest, seed) for seed in options.seeds]
        lost = [before - after for before, after in zip(unharmed, reached, strict=True)]
        return f"{spread(reached, digits=2)} ({spread(lost, digits=2)} lost)"

    seeds = ", ".join(map(str, options.seeds))
    print(f"{options.scenario}, seeds {seeds}, {options.share:.0%} hostile: least accurate released fp32 student")
    _table(options, cell)


def _table(options: argparse.Namespace, cell: Callable[[str, str, AttackSettings], str]) -> None:
    names = options.rules
    print("| attack | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
    for label, attack in attacks(options.share):
        if label not in (HONEST, *options.attacks):
            continue
        print("| " + " | ".join([label, *(cell(name, label, attack) for name in names)]) + " |", flush=True)


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(required=True)
    offline = modes.add_parser("replay", help="attack the packets of a run's newest round")
    offline.add_argument("run", type=Path)
    offline.add_argument("--distil", help="measure this device class's student instead of the consensus")
    offline.set_defaults(work=replay)
    online = modes.add_parser("runs", help="run a scenario for each rule and attack")
    online.add_argument("scenario", help="built in, or the path of a file such as benchmarks/scenarios/mnist-cut.toml")
    online.add_argument("--out", type=Path, required=True)
    online.add_argument("--seeds", type=int, nargs="+", default=[0])
    online.set_defaults(work=runs)
    for mode in (offline, online):
        mode.add_argument("--data-dir", type=Path)
        mode.add_argument("--share", type=float, default=0.2)
        mode.add_argument("--rules", nargs="+", default=list(DEFAULT_RULES))
        names = [name for name, _ in attacks(0.0) if name != HONEST]
        mode.add_argument("--attacks", nargs="+", choices=names, default=names, metavar="NAME", help="; ".join(names))
    options = parser.parse_args()
    try:
        options.work(options)
    except FedstillError as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:  # of a run, which has told why
        raise SystemExit(error.returncode) from error


if __name__ == "__main__":
    main()
