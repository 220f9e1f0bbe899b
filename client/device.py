"""A device: its student, its private data, its label cache, and what it does in a round.

The state after each round lies on the device's disk (`client/disk.py`). A state that can't be read counts as not there:
the device goes on from the older one or from nothing, and catches up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client import background
from client.centroids import Domain
from client.disk import Disk, Stored
from client.learner import DeviceData, acknowledged, bases_after, opened, opened_alike, tested_now, work_of
from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.delta import Base
from fedstill.exchange import RoundTask, close_task
from fedstill.failures import stage
from fedstill.inputs import kept_blocks
from fedstill.learning import (
    Anchor,
    Lesson,
    State,
    answers,
    blocks,
    build,
    lent,
    logits,
    probabilities,
    state_of,
    teach,
)
from fedstill.losses import kd_from_probabilities, logit_adjusted
from fedstill.models import Architecture, architecture
from fedstill.rng import stream, torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.settings import DeviceSettings, Encoding
from fedstill.soft_labels import Floats, Ints, SoftLabels, soft_labels
from fedstill.stored import BASE, load_base, load_cache, store_base, store_cache
from fedstill.tasks import Images, Task


@dataclass
class _State:
    round_number: int
    student: State
    cache: LabelCache
    answer: DeviceAnswer
    bases: tuple[Base, ...]  # what was said up to the acknowledged packet, and with the last one


@dataclass(frozen=True)
class Begun:
    """A round that a device has opened and not yet learned.

    Attributes:
        task: what the round asks.
        student: the student's parameters and buffers as the last round left them.
        lessons: what it has to learn, in this order.
        bases: what a later request may call acknowledged.
    """

    task: RoundTask
    student: State
    lessons: tuple[Lesson, ...]
    bases: tuple[Base, ...]


class Device:
    """One device of a run.

    Args:
        number: its number in the run.
        student: architecture of its student.
        task: what is learned.
        context: what all packets of the run share.
        settings: how it learns.
        uplink: encoding of its soft labels.
        data: what it learns from.
        folder: where its state lies.
        entropy_coded: whether its soft labels are coded adaptively.
        delta: whether they refer to those that the server acknowledged.
        virtual: whether it is one of many in a process: it has no power to lose, so that its state need not be on the
            disk before its answer leaves, and what all of them are asked about is kept for the next.
    """

    def __init__(
        self,
        number: int,
        student: str,
        task: Task,
        context: packet.Context,
        settings: DeviceSettings,
        uplink: Encoding,
        data: DeviceData,
        folder: Path,
        *,
        entropy_coded: bool = False,
        delta: bool = False,
        virtual: bool = False,
    ) -> None:
        self.number = number
        self.student = student
        self.task = task
        self.context = context
        self.settings = settings
        self.uplink: Encoding = uplink
        self.data = data
        self.entropy_coded = entropy_coded
        self.delta = delta
        counts = np.bincount(data.labels, minlength=task.classes).astype(np.float32)
        self.class_prior: Floats = counts / counts.sum()
        self.held = counts > 0
        self._virtual = virtual
        self._disk = Disk(folder, durable=not virtual)

    @property
    def architecture(self) -> Architecture:
        """The architecture of its student."""
        return architecture(self.student)

    def answer(self, request: bytes) -> DeviceAnswer:
        """Do a round's work, or return what was answered when this round was asked before.

        A request that breaks a rule is refused with the reason; the device keeps what it has.
        """
        begun = self.begin(request)
        if isinstance(begun, DeviceAnswer):
            return begun
        with lent(self.architecture, self.task, begun.student) as model:
            for lesson in begun.lessons:
                teach(model, lesson, self.task)
            with stage("predict"):
                asked = answers(model, self._asked_blocks(begun), self.task)
            with stage("evaluate"):
                tested = logits(model, self.test_images(begun), self.task)
            return self.finish(begun, model.state_dict(), asked, tested)

    def begin(self, request: bytes) -> Begun | DeviceAnswer:
        """Return what a round asks to learn, or the answer where there is nothing to learn for it.

        Nothing lasts before `finish`.
        """
        asked = packet.round_of(request)
        stored = self._disk.load(asked, self._read)
        if stored is not None and stored.round_number == asked:
            return stored.answer
        open_it = opened_alike if self._virtual else opened
        task = open_it(self.context, None if stored is None else stored.cache, request)
        if isinstance(task, DeviceAnswer):
            return task
        with stage("restore"):
            student = self._student() if stored is None else stored.student
        with stage("prepare"):
            lessons = self._lessons(task, first=stored is None)
        return Begun(task, student, lessons, () if stored is None else stored.bases)

    def finish(self, begun: Begun, state: State, asked: Tensor, tested: Tensor) -> DeviceAnswer:
        """Answer a round once its lessons are learned, and keep the state before the answer leaves.

        Args:
            begun: the round.
            state: of the student after the lessons.
            asked: its logits about `asked_images` `[samples, classes]`.
            tested: its logits about `test_images` `[samples, classes]`.
        """
        task = begun.task
        with stage("encode"):
            labels = self._labels(asked, task)
            base = acknowledged(begun.bases, task)
            content = close_task(self.context, task, labels, self.uplink, entropy_coded=self.entropy_coded, base=base)
        answer = DeviceAnswer(content, {**self._score(tested), **_work(begun.lessons)})
        with stage("save"):
            bases = bases_after(self.context, base, labels, self.uplink, task.round_number) if self.delta else ()
            self._save(_State(task.round_number, state, task.cache, answer, bases))
        return answer

    def asked_images(self, begun: Begun) -> Images:
        """Return the proxy samples that a round asks about `[samples, channels, height, width]`."""
        images: Images = self.data.proxy[begun.task.predict]
        return images

    def _asked_blocks(self, begun: Begun) -> Iterable[Tensor]:
        """Return the same, normalized; the virtual devices of a process share them."""
        if not self._virtual:
            return blocks(self.asked_images(begun), self.task)
        key = (self.context.proxy_digest, begun.task.predict.tobytes(), self.task)
        return kept_blocks(key, lambda: list(blocks(self.asked_images(begun), self.task)))

    def test_images(self, begun: Begun) -> Images:
        """Return what a round's student is measured on: a fixed part of the test samples, all in the last round."""
        return tested_now(begun.task, self.data.test_images)

    def _lessons(self, task: RoundTask, first: bool) -> tuple[Lesson, ...]:
        """Return the digest, if there is anything to digest, and the revisit; by background both are one fit."""
        if self.settings.certainty != "background":
            digest = self._digest(task)
            consensus = None
            if digest is not None and self.settings.anchor_weight:
                consensus = Anchor(digest.images, digest.targets, digest.loss, self.settings.anchor_weight)
            seed = self._seed("revisit", task.round_number)
            lesson = revisit_lesson(self.data, self.task, self.settings, seed, consensus)
            return (lesson,) if digest is None else (digest, lesson)
        private = (self.data.images, self.data.labels)
        how = (self.settings.first_digest if first else self.settings.revisit).of(len(self.data.labels))
        others = np.setdiff1d(np.arange(len(self.data.proxy)), task.predict)
        rng = stream(self.context.seed, "background", self.number, task.round_number)
        # Of a large proxy set no more is read than the steps take.
        ids = np.sort(rng.permutation(others)[: how.steps * how.batch])
        proxy = (self.data.proxy[ids], background.targets(task.cache, ids, self.held, task.usable))
        return (background.lesson(private, proxy, self.held, how, self._seed("revisit", task.round_number)),)

    def _student(self) -> State:
        seed = torch_seed(self.context.seed, "device", self.number)
        return state_of(build(self.architecture, self.task, seed))

    def _seed(self, purpose: str, round_number: int) -> int:
        return torch_seed(self.context.seed, purpose, self.number, round_number)

    def _temperature(self, task: RoundTask) -> float:
        wanted = self.settings.temperature
        return SCHEDULES[wanted.schedule](progress_of(task.round_number, task.rounds), wanted.start, wanted.end)

    def _digestible(self, task: RoundTask) -> Ints:
        """Return the samples with a label in use that this round does not ask about.

        A device that had just learned the old consensus about a sample would only repeat it.
        """
        kept = np.zeros(self.context.proxy_size, dtype=np.bool_)
        kept[task.usable] = True
        kept[task.predict] = False
        return np.flatnonzero(kept)

    def _digest(self, task: RoundTask) -> Lesson | None:
        """Return the fit to the consensus about the proxy samples that have one, None where there is none."""
        ids = self._digestible(task)
        if len(ids) == 0 or self.settings.digest is None:
            return None
        loss = partial(kd_from_probabilities, temperature=self._temperature(task))
        settings = self.settings.first_digest if task.cache.version == 1 else self.settings.digest
        seed = self._seed("digest", task.round_number)
        labels = torch.from_numpy(task.cache.labels[ids])
        return Lesson("digest", self.data.proxy[ids], labels, settings.of(len(ids)), loss, seed)

    def _labels(self, logits: Tensor, task: RoundTask) -> SoftLabels:
        certainty: Floats | None = None
        if self.settings.certainty == "background":
            rows, certainty = background.predicted(logits, self.held)
        else:
            rows = probabilities(logits)
            if self.settings.certainty == "k-means":
                certainty = self._domain().certainty(self.data.proxy[task.predict], self.task)
        present = None
        if self.settings.abstain_below:
            surest = rows.max(axis=1) if certainty is None else certainty
            present = surest >= self.settings.abstain_below
        return soft_labels(
            task.predict,
            rows,
            present=present,
            certainty=certainty if self.settings.send_certainty else None,
            class_prior=self.class_prior if self.settings.send_class_prior else None,
        )

    def _score(self, tested: Tensor) -> dict[str, float]:
        labels = self.data.test_labels[: len(tested)]
        return {"accuracy": float((tested.argmax(dim=1).numpy() == labels).mean())} if len(labels) else {}

    def _domain(self) -> Domain:
        """Return the device's domain; it is the same in each round, and cheap beside the learning."""
        rng = stream(self.context.seed, "centroids", self.number)
        return Domain.of(self.data.images, self.data.proxy, self.settings.centroids, self.task, rng)

    def _read(self, stored: Stored) -> _State:
        """Return a state that lay on the disk.

        Raises:
            KeyError: something is missing.
            ValueError: it is about another proxy set.
        """
        cache = load_cache(stored.more)
        if cache.labels.shape != (self.context.proxy_size, self.context.classes):
            raise ValueError("it is about another proxy set")
        bases = tuple(
            load_base({key: stored.more[f"base-{place}/{key}"] for key in BASE}, self.context.classes)
            for place in range(stored.more["bases"])
        )
        return _State(stored.round_number, stored.student, cache, stored.answer, bases)

    def _save(self, state: _State) -> None:
        """Write the state, then drop all but this round's and the one before it."""
        more = {**store_cache(state.cache), "bases": len(state.bases)}
        for place, base in enumerate(state.bases):
            more |= {f"base-{place}/{key}": value for key, value in store_base(base).items()}
        self._disk.save(Stored(state.round_number, state.student, state.answer, more))


def _work(lessons: Iterable[Lesson]) -> dict[str, float]:
    parts = [work_of([lesson.how], batches=1 if lesson.anchor is None else 2) for lesson in lessons]
    return {key: sum(part[key] for part in parts) for key in ("steps", "samples")}


def revisit_lesson(
    data: DeviceData, task: Task, settings: DeviceSettings, seed: int, consensus: Anchor | None = None
) -> Lesson:
    """Return one round's fit to a device's private data: what local-only training repeats, without a consensus."""
    counts = np.bincount(data.labels, minlength=task.classes) / len(data.labels)
    log_prior = torch.from_numpy(np.log(np.maximum(counts, settings.prior_floor)).astype(np.float32))
    loss = partial(logit_adjusted, log_prior=log_prior, tau=settings.logit_adjustment)
    how = settings.revisit.of(len(data.labels))
    return Lesson("revisit", data.images, torch.from_numpy(np.array(data.labels)), how, loss, seed, consensus)


def revisit(model: nn.Module, data: DeviceData, task: Task, settings: DeviceSettings, seed: int) -> None:
    """Train `model` on a device's private data for one round."""
    teach(model, revisit_lesson(data, task, settings, seed), task)
