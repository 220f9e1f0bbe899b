"""The server's side of a run: consensus, teacher, class students and checkpoints, round by round."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from fedstill.consensus import Consensus, Votes, confidence_threshold, entropies, mixed, rules
from fedstill.consensus.ballots import without
from fedstill.errors import QuorumError
from fedstill.exchange import ServerExchange
from fedstill.learning import State, accuracy, predict, restored
from fedstill.loading import resolve
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.rounds import RoundReplies, Traffic, prequential_by_class, work_by_class
from fedstill.settings import ConsensusSettings, StudentSettings, TeacherSettings
from fedstill.soft_labels import Bools, Floats, Ints, SoftLabels
from fedstill.stored import load_base, load_cache, store_base, store_cache
from fedstill.tasks import Images, load_task
from fedstill.workers import unordered
from server import students, teacher
from server.checkpoints import Checkpoints

Row = dict[str, Any]
DOUBTING = ("reputable-experts", "selective-teacher")
MOST_REPUTATIONS = 100
"""Devices whose reputation a round's row tells."""


class LabelledImages(Protocol):
    """Images with their labels."""

    @property
    def images(self) -> Images:
        """Uint8 `[samples, channels, height, width]`."""

    @property
    def labels(self) -> Ints:
        """Class indices `[samples]`."""


class ServerData(Protocol):
    """What the server holds; an implementation pickles as little more than a path."""

    @property
    def server(self) -> LabelledImages:
        """Labelled samples that the teacher trains on."""

    @property
    def guard(self) -> LabelledImages:
        """Held-out labelled samples."""

    @property
    def proxy(self) -> Images:
        """The proxy set."""

    @property
    def test(self) -> LabelledImages:
        """The test set, for reporting only."""


class Clock(Protocol):
    """Keeps the virtual time of a simulated run, as part of its rows and checkpoints."""

    @property
    def lets_answers_be_late(self) -> bool:
        """Whether an answer may come after the end of the round that asked for it."""

    def rounds_of(self, device: int) -> tuple[int, ...]:
        """Return the rounds whose work a device has done, ascending."""

    def row(self) -> Mapping[str, Any]:
        """Return what the last round adds to its row."""

    def stored(self) -> dict[str, Any]:
        """Return what lasts, in the types that a checkpoint holds."""

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take over what `stored` returned."""


@dataclass(frozen=True)
class Plan:
    """What a federation is configured to do.

    Attributes:
        task: reference of the task.
        seed: run seed.
        rounds: rounds of the whole run.
        student_of: architecture of the student by device class.
        teacher: settings of the teacher; None: there is none.
        students: settings of the class students.
        consensus: settings of the consensus.
        workers: processes that may compute at once.
        observers: device classes that learn nothing: what they answer is the server's own knowledge.
    """

    task: str
    seed: int
    rounds: int
    student_of: Mapping[str, str]
    teacher: TeacherSettings | None
    students: StudentSettings
    consensus: ConsensusSettings
    workers: int
    observers: frozenset[str] = frozenset()


@dataclass
class Knowledge:
    """What a federation has learned so far: everything that a checkpoint holds beside the exchange.

    Attributes:
        round_number: the last finished round.
        teacher_initial: the teacher before the first round; empty without a teacher.
        teacher: the teacher now; empty without a teacher.
        students: the class students' states by device class.
        rows: a row of metrics per finished round.
        seconds: time spent in rounds.
        reputation: of each device, by class, for a consensus rule that keeps one `[classes]`.
    """

    round_number: int
    teacher_initial: State
    teacher: State
    students: dict[str, State]
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    reputation: dict[int, Floats] = field(default_factory=dict)


def update_teacher(plan: Plan, data: ServerData, state: State, ids: Ints, labels: Floats, round_number: int) -> Any:
    """Update the teacher; runs in a worker."""
    assert plan.teacher is not None
    return teacher.update(
        plan.task,
        plan.teacher,
        state,
        (data.proxy[ids], labels),
        (data.server.images, data.server.labels),
        (data.guard.images, data.guard.labels),
        torch_seed(plan.seed, "update", round_number),
    )


def distil_student(
    plan: Plan, data: ServerData, name: str, state: State, ids: Ints, labels: Floats, round_number: int
) -> tuple[State, float]:
    """Distil a class student for one round and measure it; runs in a worker."""
    architecture_name = plan.student_of[name]
    new_state = students.distil(
        plan.task,
        architecture_name,
        plan.students,
        state,
        data.proxy[ids],
        labels,
        round_number,
        plan.rounds,
        plan.seed,
    )
    return new_state, measure(plan.task, architecture_name, new_state, data.test)


def measure(task_name: str, architecture_name: str, state: State, data: LabelledImages) -> float:
    """Return the accuracy of a state on labelled samples."""
    task = load_task(task_name)
    model = restored(architecture(architecture_name), task, state)
    return accuracy(model, data.images, data.labels, task)


def _of_devices(replies: RoundReplies, consensus: Consensus) -> dict[str, float | None]:
    """Return devices' mean reputations over the classes that they have one about, nothing for a rule without any.

    Of large fleets only those of least reputation are told: a row is written for every round, and kept.
    """
    if consensus.reputation is None:
        return {}
    known = [values[~np.isnan(values)] for values in consensus.reputation]
    means = [float(values.mean()) if len(values) else None for values in known]
    found = zip(sorted(replies.votes), means, strict=True)
    least = sorted(found, key=lambda one: (one[1] is None, one[1]))[:MOST_REPUTATIONS]
    return {str(device): mean for device, mean in sorted(least)}


def _work(kind: str, plan: Plan, data: ServerData, name: str, *arguments: Any) -> Any:
    if kind == "teacher":
        return update_teacher(plan, data, *arguments)
    return distil_student(plan, data, name, *arguments)


class Federation:
    """Concludes rounds: the `conclude` of `fedstill.flower.FederatedDistillation`.

    Args:
        plan: what to do.
        data: what the server holds.
        exchange: the server's half of the exchange.
        checkpoints: where finished rounds are kept.
        on_round: called with each finished round's row after its checkpoint.
        clock: the run's virtual time; None: it lives in none.
    """

    def __init__(
        self,
        plan: Plan,
        data: ServerData,
        exchange: ServerExchange,
        checkpoints: Checkpoints,
        on_round: Callable[[list[Row]], None],
        clock: Clock | None = None,
    ) -> None:
        self.plan = plan
        self.data = data
        self.exchange = exchange
        self.traffic = Traffic()
        self._checkpoints = checkpoints
        self._on_round = on_round
        self.clock = clock
        self._task = load_task(plan.task)
        builtin = rules(plan.consensus)
        self._rule = resolve("consensus rule", plan.consensus.rule, builtin)
        # Of the built-in rules these read where the teacher is unsure; a user's own may.
        self._asks_the_guard = plan.consensus.rule in DOUBTING or plan.consensus.rule not in builtin
        self._started = time.monotonic()
        self.knowledge = self._resume() or self._begin()

    def _begin(self) -> Knowledge:
        state: State = {}
        if self.plan.teacher is not None:
            server = self.data.server
            state = teacher.train_initial(
                self.plan.task, self.plan.teacher, server.images, np.array(server.labels), self.plan.seed
            )
        fresh = {
            name: students.initial(self.plan.task, architecture_name, self.plan.seed)
            for name, architecture_name in self.plan.student_of.items()
        }
        self.knowledge = Knowledge(0, state, state, fresh)
        everything = np.arange(len(self.data.proxy), dtype=np.int64)
        initial = self._teacher_labels(everything)
        if initial is not None:
            self.exchange.publish(0, everything, initial)
        self._save()
        self._started = time.monotonic()
        return self.knowledge

    def conclude(self, replies: RoundReplies) -> Mapping[str, float]:
        """Make a round's answers into consensus, teacher and class students, and write the checkpoint.

        Raises:
            QuorumError: nobody that learns is among those who answered.
        """
        known = self.knowledge
        answers = replies.answers
        everybody, replies = len(replies.votes), self._trained(replies)
        observed = everybody - len(replies.votes)
        votes, consensus = self._agreed(replies.ids, replies.votes, replies.votes)
        self._publish(replies, consensus)
        shared = (*self.labels(replies.round_number), replies.round_number)
        names = list(known.students)
        calls = [("student", self.plan, self.data, name, known.students[name], *shared) for name in names]
        if self.plan.teacher is not None:  # first, as it takes longest
            calls.insert(0, ("teacher", self.plan, self.data, "", known.teacher, *shared))
        results = dict(unordered(_work, calls, self.plan.workers))
        updated: teacher.Updated | None = results.pop(0) if self.plan.teacher is not None else None
        distilled = dict(zip(names, (results[place] for place in sorted(results)), strict=True))
        if updated is not None:
            known.teacher = updated.state
        known.students = {name: state for name, (state, _) in distilled.items()}
        known.round_number = replies.round_number
        accuracies = {name: score for name, (_, score) in distilled.items()}
        row = self._row(replies, votes, consensus, updated, accuracies, answers, observed)
        known.rows.append(row)
        now = time.monotonic()
        known.seconds += now - self._started
        self._started = now
        self._save()
        self._on_round(known.rows)
        scores = {} if updated is None else {"teacher_accuracy": float(row["teacher_accuracy"])}
        return {"answers": float(answers), **scores}

    def _trained(self, replies: RoundReplies) -> RoundReplies:
        """Return the replies with the votes of those alone that learn: an observer's would count the server twice."""
        kinds, votes = replies.device_classes, replies.votes
        if not self.plan.observers:
            return replies
        observing = [device for device in votes if kinds[device] in self.plan.observers]
        others_come_late = self.clock is not None and self.clock.lets_answers_be_late
        if observing and len(observing) == len(votes) and not others_come_late:
            raise QuorumError(f"round {replies.round_number}: only observers answered; check the devices that learn")
        reopened = tuple(
            replace(
                earlier,
                votes={one: vote for one, vote in earlier.votes.items() if kinds[one] not in self.plan.observers},
            )
            for earlier in replies.reopened
        )
        return replace(replies, votes=without(votes, observing), reopened=reopened)

    def labels(self, round_number: int | None = None) -> tuple[Ints, Floats]:
        """Return the proxy samples whose labels are in use after a round, by default the last, and these labels."""
        cache = self.exchange.cache
        now = self.knowledge.round_number if round_number is None else round_number
        ids = cache.usable(now, self.exchange.duration)
        return ids, cache.labels[ids]

    def _agreed(self, ids: Ints, answers: Mapping[int, SoftLabels], new: Collection[int]) -> tuple[Votes, Consensus]:
        """Return answers as votes, and what they agree on; note the reputation of devices whose answers are new."""
        if not answers:
            return Votes.none(len(ids), self._task.classes), Consensus.none(len(ids), self._task.classes)
        known = self.knowledge
        teacher_labels = self._teacher_labels(ids)
        unsure = self._unsure(teacher_labels) if self._asks_the_guard else None
        votes = Votes.stack(ids, answers, teacher_labels, unsure, known.reputation)
        consensus = self._consensus(votes)
        if consensus.reputation is not None:
            found = zip(sorted(answers), consensus.reputation, strict=True)
            known.reputation.update((device, values) for device, values in found if device in new)
        return votes, consensus

    def _publish(self, replies: RoundReplies, consensus: Consensus) -> None:
        """Publish a round's consensus, and that of earlier rounds which late answers have changed."""
        ids, labels = [replies.ids[consensus.covered]], [consensus.labels[consensus.covered]]
        for earlier in replies.reopened:
            _, changed = self._agreed(earlier.ids, earlier.votes, earlier.new)
            kept = changed.covered & self.exchange.changeable(replies.round_number, earlier.ids)
            ids.append(earlier.ids[kept])
            labels.append(changed.labels[kept])
        everything = np.concatenate(ids)
        order = np.argsort(everything)
        again = np.concatenate(ids[1:]) if replies.reopened else None
        self.exchange.publish(replies.round_number, everything[order], np.concatenate(labels)[order], again)

    def _teacher_labels(self, ids: Ints) -> Floats | None:
        if self.plan.teacher is None:
            return None
        model = restored(architecture(self.plan.teacher.architecture), self._task, self.knowledge.teacher)
        return predict(model, self.data.proxy[ids], self._task)

    def _unsure(self, labels: Floats | None) -> Bools | None:
        """Return where a teacher is only as confident as where it errs about guard samples `[samples]`."""
        if labels is None or self.plan.teacher is None:
            return None
        task, guard = self._task, self.data.guard
        model = restored(architecture(self.plan.teacher.architecture), task, self.knowledge.teacher)
        known = predict(model, guard.images, task)
        accuracy = self.plan.consensus.reputation.anchor_accuracy
        unsure: Bools = labels.max(axis=1) < confidence_threshold(known, np.array(guard.labels), accuracy)
        return unsure

    def _consensus(self, votes: Votes) -> Consensus:
        """Apply the rule and mix in the share of a teacher, who stands alone where nobody voted."""
        from_devices = self._rule(votes)
        if votes.teacher is None:
            return from_devices
        share = np.where(from_devices.covered, self.plan.consensus.teacher_weight, 1.0).astype(np.float32)
        labels = mixed(from_devices.labels, votes.teacher, share)
        return Consensus(labels, np.ones(len(labels), dtype=np.bool_), from_devices.reputation)

    def _row(
        self,
        replies: RoundReplies,
        votes: Votes,
        consensus: Consensus,
        updated: teacher.Updated | None,
        accuracies: Mapping[str, float],
        answers: int,
        observed: int,
    ) -> Row:
        by_class: dict[str, list[float]] = {name: [] for name in self.plan.student_of}
        work = work_by_class(replies, self.plan.student_of)
        for device, metrics in replies.metrics.items():
            if "accuracy" in metrics:
                by_class.setdefault(replies.device_classes[device], []).append(metrics["accuracy"])
        before, after = entropies(votes, consensus.labels)
        return {
            "round": replies.round_number,
            "answers": answers,
            "trained": answers - observed,
            "observed": observed,
            "asked": len(replies.ids),
            "refused": {str(device): reason for device, reason in sorted(replies.refused.items())},
            "abstained": float((~votes.present).sum() / max(1, votes.present.size)),
            "covered": float(consensus.covered.sum() / max(1, consensus.covered.size)),
            "entropy_before": before,
            "entropy_after": after,
            "reputation": _of_devices(replies, consensus),
            **self._teacher_row(updated),
            "released_accuracy": dict(accuracies),
            "device_accuracy": {name: float(np.mean(found)) if found else None for name, found in by_class.items()},
            **prequential_by_class(replies, self.plan.student_of),
            **work,
            "uplink_bytes": sum(self.traffic.uplink.values()),
            "downlink_bytes": sum(self.traffic.downlink.values()),
            **({} if self.clock is None else self.clock.row()),
        }

    def _teacher_row(self, updated: teacher.Updated | None) -> Row:
        if updated is None or self.plan.teacher is None:
            return dict.fromkeys(("teacher_accuracy", "teacher_update_kept", "guard_before", "guard_after"))
        return {
            "teacher_accuracy": measure(self.plan.task, self.plan.teacher.architecture, updated.state, self.data.test),
            "teacher_update_kept": updated.kept,
            "guard_before": updated.guard_before,
            "guard_after": updated.guard_after,
        }

    def _save(self) -> None:
        known = self.knowledge
        self._checkpoints.save(
            known.round_number,
            {
                "round": known.round_number,
                "teacher_initial": known.teacher_initial,
                "teacher": known.teacher,
                "students": known.students,
                "rows": known.rows,
                "seconds": known.seconds,
                "reputation": {device: torch.from_numpy(value) for device, value in known.reputation.items()},
                **store_cache(self.exchange.cache),
                "class_caches": {name: store_cache(held) for name, held in self.exchange.class_caches.items()},
                "previous": {name: store_cache(held) for name, held in self.exchange.previous.items()},
                "acknowledged": dict(self.exchange.acknowledged),
                "bases": {device: store_base(base) for device, base in self.exchange.bases.items()},
                "uplink": dict(self.traffic.uplink),
                "downlink": dict(self.traffic.downlink),
                "messages": self.traffic.messages,
                "envelope_bytes": self.traffic.envelope_bytes,
                **({} if self.clock is None else {"clock": self.clock.stored()}),
            },
        )

    def _resume(self) -> Knowledge | None:
        stored = self._checkpoints.newest()
        if stored is None:
            return None
        self.exchange.cache = load_cache(stored)
        self.exchange.class_caches = {name: load_cache(held) for name, held in stored["class_caches"].items()}
        self.exchange.previous = {name: load_cache(held) for name, held in stored["previous"].items()}
        self.exchange.acknowledged = dict(stored["acknowledged"])
        if self.clock is not None:
            self.clock.restore(stored["clock"])
        classes = self._task.classes
        self.exchange.bases = {device: load_base(base, classes) for device, base in stored["bases"].items()}
        self.traffic = Traffic(stored["uplink"], stored["downlink"], stored["messages"], stored["envelope_bytes"])
        return Knowledge(
            stored["round"],
            stored["teacher_initial"],
            stored["teacher"],
            stored["students"],
            stored["rows"],
            stored["seconds"],
            {device: value.numpy() for device, value in stored["reputation"].items()},
        )
