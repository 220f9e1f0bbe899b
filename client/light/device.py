"""Devices without torch: one that trains a softmax head on a backbone's features, and one that only observes.

The head learner is linear probing (Alain and Bengio 2016, arXiv 1610.01644) in the place of the student's training: the
int8 backbone stays as the server made it, and a round's digest and revisit move the head alone, by the same losses
and as many steps as they would the whole student. It sees images as they are: features of shifted and mirrored ones
would have to be computed in every step, which is what such a board can't afford.

The observer has the same backbone and the head that came with it. What it answers is the server's own knowledge, seen
on the device; what is new is how well that does on the device's data. It takes no step, and is never counted as
trained.
"""

from functools import cached_property, partial
from pathlib import Path

import numpy as np

from client.learner import DeviceData, acknowledged, bases_after, opened, tested_now, work_of
from client.light.softmax import Distillation, LogitAdjusted, Part, softmax, teach
from client.light.state import SUFFIX, LightState, read, write
from client.states import States
from fedstill import packet
from fedstill.errors import ConfigError
from fedstill.exchange import RoundTask, close_task
from fedstill.failures import stage
from fedstill.fit import Fit
from fedstill.release.backbone import Backbone
from fedstill.rng import stream
from fedstill.rounds import DeviceAnswer
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.settings import DeviceSettings, Encoding
from fedstill.soft_labels import Floats, Ints, SoftLabels, soft_labels
from fedstill.tasks import Images, Task


class Observer:
    """A device that trains nothing.

    Args:
        number: its number in the run.
        backbone: its model.
        task: what is learned.
        context: what all packets of the run share.
        settings: how devices learn.
        uplink: encoding of its soft labels.
        data: what it is measured on.
        folder: where its state lies.
        entropy_coded: whether its soft labels are coded adaptively.
        delta: whether they refer to those that the server acknowledged.
        virtual: whether it has no power to lose, so that its state need not be on the disk before its answer leaves.

    Raises:
        ConfigError: the run's devices have to tell a certainty.
    """

    def __init__(
        self,
        number: int,
        backbone: Backbone,
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
        if settings.certainty != "none":
            raise ConfigError(f"a learner without torch knows no certainty {settings.certainty!r}")
        self.number = number
        self.task = task
        self.context = context
        self.settings = settings
        self.uplink: Encoding = uplink
        self.data = data
        self._backbone = backbone
        self._entropy_coded = entropy_coded
        self._delta = delta
        self._read = partial(read, context=context, shape=backbone.head.shape)
        self._states = States(folder, SUFFIX, durable=not virtual)

    def answer(self, request: bytes) -> DeviceAnswer:
        """Do a round's work, or return what was answered when this round was asked before.

        A request that breaks a rule is refused with the reason; the device keeps what it has.
        """
        asked = packet.round_of(request)
        stored = self._states.load(asked, self._read)
        if stored is not None and stored.round_number == asked:
            return stored.answer
        task = opened(self.context, None if stored is None else stored.cache, request)
        if isinstance(task, DeviceAnswer):
            return task
        head, fits = self._learned(task, self._backbone.head if stored is None else stored.head)
        with stage("predict"):
            labels = self._labels(self._rows(self.data.proxy[task.predict], head), task)
        with stage("evaluate"):
            score = self._score(head, task)
        with stage("encode"):
            base = acknowledged(() if stored is None else stored.bases, task)
            content = close_task(self.context, task, labels, self.uplink, entropy_coded=self._entropy_coded, base=base)
        answer = DeviceAnswer(content, {**score, **fits})
        with stage("save"):
            said = bases_after(self.context, base, labels, self.uplink, task.round_number) if self._delta else ()
            self._states.save(task.round_number, write(LightState(task.round_number, head, task.cache, answer, said)))
        return answer

    def _learned(self, task: RoundTask, head: Floats) -> tuple[Floats, dict[str, float]]:
        """Return the head after a round's lessons and the metrics of the work: as it was, and none."""
        return head, work_of([])

    def _rows(self, images: Images, head: Floats) -> Floats:
        return softmax(self._backbone.features(images) @ head)

    def _labels(self, rows: Floats, task: RoundTask) -> SoftLabels:
        return soft_labels(
            task.predict,
            rows,
            present=rows.max(axis=1) >= self.settings.abstain_below,
            class_prior=self._class_prior() if self.settings.send_class_prior else None,
        )

    def _class_prior(self) -> Floats | None:
        """Return the share of each class in what it learns from: nothing."""
        return None

    def _score(self, head: Floats, task: RoundTask) -> dict[str, float]:
        images = tested_now(task, self.data.test_images)
        if not len(images):
            return {}
        found = self._rows(images, head).argmax(axis=1)
        return {"accuracy": float((found == self.data.test_labels[: len(found)]).mean())}


class HeadLearner(Observer):
    """A device that trains the head; its arguments are those of an observer."""

    def _learned(self, task: RoundTask, head: Floats) -> tuple[Floats, dict[str, float]]:
        fits, batches = [], 1
        digest, how = self._digest(task)
        if digest is not None and how is not None:
            with stage("digest"):
                head = teach(head, (digest,), how, self._stream("digest", task))
            fits.append(how)
        with stage("revisit"):
            how = self.settings.revisit.of(len(self.data.labels))
            parts: tuple[Part, ...] = (self._private,)
            if digest is not None and self.settings.anchor_weight:
                parts = (self._private, Part(digest.features, digest.gradient, self.settings.anchor_weight))
                batches = 2
            head = teach(head, parts, how, self._stream("revisit", task))
        work, revisit = work_of(fits), work_of([how], batches)
        return head, {key: work[key] + revisit[key] for key in work}

    def _class_prior(self) -> Floats | None:
        counts = np.bincount(self.data.labels, minlength=self.task.classes).astype(np.float32)
        prior: Floats = counts / counts.sum()
        return prior

    def _stream(self, purpose: str, task: RoundTask) -> np.random.Generator:
        return stream(self.context.seed, purpose, self.number, task.round_number)

    @cached_property
    def _private(self) -> Part:
        """The private samples, whose features are computed once."""
        counts = np.bincount(self.data.labels, minlength=self.task.classes) / len(self.data.labels)
        shift = self.settings.logit_adjustment * np.log(np.maximum(counts, self.settings.prior_floor))
        labels: Ints = np.array(self.data.labels)
        return Part(self._backbone.features(self.data.images), LogitAdjusted(labels, shift.astype(np.float32)))

    def _digest(self, task: RoundTask) -> tuple[Part | None, Fit | None]:
        """Return the proxy samples with a label in use that this round does not ask about, and how to fit them."""
        ids = np.setdiff1d(task.usable, task.predict)
        if len(ids) == 0 or self.settings.digest is None:
            return None, None
        wanted = self.settings.temperature
        temperature = SCHEDULES[wanted.schedule](progress_of(task.round_number, task.rounds), wanted.start, wanted.end)
        how = (self.settings.first_digest if task.cache.version == 1 else self.settings.digest).of(len(ids))
        labels = Distillation(task.cache.labels[ids], temperature)
        return Part(self._backbone.features(self.data.proxy[ids]), labels), how
