"""A device: its student, its private data, its label cache, and what it does in a round.

The state after each round lies on the device's disk, the last two rounds of it, so that a device that was killed goes
on from a finished round, and one that is asked the same round twice answers from what it already did.
"""

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import RoundTask, close_task, open_request
from fedstill.files import write_atomic
from fedstill.learning import Anchor, accuracy, build, fit, predict, state_of
from fedstill.losses import kd_from_probabilities, logit_adjusted
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.schedules import SCHEDULES, progress_of
from fedstill.settings import DeviceSettings, Encoding
from fedstill.soft_labels import Floats, Ints, SoftLabels, soft_labels
from fedstill.tasks import Images, Task

ROUND_TEST_SAMPLES = 1000  # a full evaluation in each round would cost as much as the training


@dataclass(frozen=True)
class DeviceData:
    """What a device learns from and is measured on.

    Attributes:
        images: private samples, which never leave the device.
        labels: their classes `[samples]`.
        proxy: the shared unlabelled samples.
        test_images: what the device evaluates on; empty: it does not.
        test_labels: their classes.
    """

    images: Images
    labels: Ints
    proxy: Images
    test_images: Images
    test_labels: Ints


@dataclass
class _State:
    round_number: int
    student: dict[str, torch.Tensor]
    cache: LabelCache
    answer: DeviceAnswer


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
    ) -> None:
        self.number = number
        self.student = student
        self.task = task
        self.context = context
        self.settings = settings
        self.uplink: Encoding = uplink
        self.data = data
        self.folder = folder
        counts = np.bincount(data.labels, minlength=task.classes).astype(np.float32)
        self.class_prior: Floats = counts / counts.sum()

    def answer(self, request: bytes) -> DeviceAnswer:
        """Do a round's work, or return what was answered when this round was asked before.

        A request that breaks a rule is refused with the reason; the device keeps what it has.
        """
        asked = packet.round_of(request)
        stored = self._load(asked)
        if stored is not None and stored.round_number == asked:
            return stored.answer
        cache = LabelCache.empty(self.context.proxy_size, self.context.classes) if stored is None else stored.cache
        try:
            task = open_request(self.context, cache, request)
        except StaleCacheError as error:
            return DeviceAnswer(b"", {}, str(error), error.held)
        except PacketError as error:
            return DeviceAnswer(b"", {}, str(error), cache.version)
        model = self._model(stored)
        consensus = self._digest(model, task)
        seed = self._seed("revisit", task.round_number)
        revisit(model, self.data, self.task, self.settings, seed, consensus)
        content = close_task(self.context, task, self._labels(model, task), self.uplink)
        answer = DeviceAnswer(content, self._evaluate(model, task))
        self._save(_State(task.round_number, state_of(model), task.cache, answer))
        return answer

    def _model(self, stored: _State | None) -> nn.Module:
        model = build(architecture(self.student), self.task, torch_seed(self.context.seed, "device", self.number))
        if stored is not None:
            model.load_state_dict(stored.student)
        return model

    def _seed(self, purpose: str, round_number: int) -> int:
        return torch_seed(self.context.seed, purpose, self.number, round_number)

    def _temperature(self, task: RoundTask) -> float:
        wanted = self.settings.temperature
        return SCHEDULES[wanted.schedule](progress_of(task.round_number, task.rounds), wanted.start, wanted.end)

    def _digestible(self, task: RoundTask) -> Ints:
        """Return the samples with a label that this round does not ask about.

        A device that had just learned the old consensus about a sample would only repeat it.
        """
        return np.setdiff1d(task.cache.known, task.predict)

    def _digest(self, model: nn.Module, task: RoundTask) -> Anchor | None:
        """Learn the consensus about the proxy samples that have one; return it as what a revisit holds on to."""
        ids = self._digestible(task)
        if len(ids) == 0:
            return None
        loss = partial(kd_from_probabilities, temperature=self._temperature(task))
        labels = torch.from_numpy(task.cache.labels[ids])
        settings = self.settings.first_digest if task.cache.version == 1 else self.settings.digest
        how = settings.of(len(ids))
        images = self.data.proxy[ids]
        fit(model, images, labels, self.task, how, loss, self._seed("digest", task.round_number))
        return Anchor(images, labels, loss, self.settings.anchor_weight) if self.settings.anchor_weight else None

    def _labels(self, model: nn.Module, task: RoundTask) -> SoftLabels:
        probabilities = predict(model, self.data.proxy[task.predict], self.task)
        return soft_labels(
            task.predict,
            probabilities,
            present=probabilities.max(axis=1) >= self.settings.abstain_below,
            class_prior=self.class_prior if self.settings.send_class_prior else None,
        )

    def _evaluate(self, model: nn.Module, task: RoundTask) -> dict[str, float]:
        """Measure the student: on a fixed part of the test samples, on all of them in the last round."""
        count = len(self.data.test_labels) if task.round_number == task.rounds else ROUND_TEST_SAMPLES
        images, labels = self.data.test_images[:count], self.data.test_labels[:count]
        return {"accuracy": accuracy(model, images, labels, self.task)} if len(labels) else {}

    def _path(self, round_number: int) -> Path:
        return self.folder / f"round-{round_number:05d}.pt"

    def _load(self, asked: int) -> _State | None:
        """Return the state of the asked round, or else of the newest round before it."""
        found = sorted(self.folder.glob("round-*.pt"), reverse=True)
        path = next((path for path in found if path <= self._path(asked)), None)
        if path is None:
            return None
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        cache = LabelCache(stored["labels"].numpy(), stored["changed"].numpy(), stored["version"])
        answer = DeviceAnswer(stored["packet"].numpy().tobytes(), stored["metrics"])
        return _State(stored["round"], stored["student"], cache, answer)

    def _save(self, state: _State) -> None:
        """Write the state, then drop all but this round's and the one before it."""
        content = io.BytesIO()
        stored = {
            "round": state.round_number,
            "student": state.student,
            "labels": torch.from_numpy(state.cache.labels),
            "changed": torch.from_numpy(state.cache.changed),
            "version": state.cache.version,
            "packet": torch.frombuffer(bytearray(state.answer.packet), dtype=torch.uint8),
            "metrics": dict(state.answer.metrics),
        }
        torch.save(stored, content)
        write_atomic(self._path(state.round_number), content.getvalue())
        for path in sorted(self.folder.glob("round-*.pt"))[:-2]:
            path.unlink()


def revisit(
    model: nn.Module,
    data: DeviceData,
    task: Task,
    settings: DeviceSettings,
    seed: int,
    consensus: Anchor | None = None,
) -> None:
    """Train `model` on a device's private data for one round: what local-only training repeats, without a consensus."""
    counts = np.bincount(data.labels, minlength=task.classes) / len(data.labels)
    log_prior = torch.from_numpy(np.log(np.maximum(counts, settings.prior_floor)).astype(np.float32))
    loss = partial(logit_adjusted, log_prior=log_prior, tau=settings.logit_adjustment)
    how = settings.revisit.of(len(data.labels))
    fit(model, data.images, torch.from_numpy(np.array(data.labels)), task, how, loss, seed, consensus)
