"""Students of one architecture learn and predict as one computation, in chunks (`fedstill.cohorts`).

The way on a GPU, and for dense students on a CPU, where about ten at a time fit a core's cache. Convolutions of
different students don't batch well on a CPU: a measurement of their architecture then says 1, which is one after the
other. Chunks are spread over worker processes like single devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from client.device import Begun, Device
from client.executors.chunks import best_chunk
from client.executors.interface import Fleet, attempt, log, nobody
from client.executors.process import Processes
from client.executors.settings import CohortSettings
from fedstill.cohorts import Cohort
from fedstill.errors import ConfigError, FedstillError
from fedstill.failures import told
from fedstill.learning import Lesson, build
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import Images, Task
from fedstill.workers import unordered

LARGE = 1 << 20  # bytes of images from which on a copy for each device would count


class Cohorts:
    """Computes students in chunks.

    Args:
        workers: processes that may compute at once on a CPU; a GPU is driven from this process.
        settings: of the chunks.

    Raises:
        ConfigError: there is no such device here.
    """

    def __init__(self, workers: int, settings: CohortSettings) -> None:
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("cohort.device is cuda, but torch finds no GPU here; set it to cpu")
        self._workers = workers if settings.device == "cpu" else 1
        self._settings = settings

    def answer(
        self, fleet: Fleet, requests: Mapping[int, bytes], told: Callable[[], None] = nobody
    ) -> dict[int, DeviceAnswer]:
        """Return the answers by device, ascending; a chunk whose worker gets killed is computed device by device."""
        students: dict[str, list[int]] = {}
        for number in requests:
            students.setdefault(fleet.student(number), []).append(number)
        chunks: list[list[int]] = []
        for numbers in students.values():
            size = self._chunk(fleet, numbers)
            chunks += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        chunks.sort(key=len, reverse=True)
        calls = [(fleet, {number: requests[number] for number in chunk}, self._settings) for chunk in chunks]
        answers: dict[int, DeviceAnswer] = {}
        for _, part in unordered(answer_chunk, calls, self._workers, _lost):
            answers |= part
            for _ in part:
                told()
        left = {number: request for number, request in requests.items() if number not in answers}
        answers |= Processes(self._workers).answer(fleet, left, told)
        return dict(sorted(answers.items()))

    def _chunk(self, fleet: Fleet, numbers: Sequence[int]) -> int:
        if self._settings.chunk:
            return self._settings.chunk
        device = fleet.device(numbers[0])
        if device is None or len(numbers) == 1:
            return 1
        with _precision(self._settings.precision):
            return best_chunk(device.student, device.task, device.settings.revisit.batch, self._settings.device)


def answer_chunk(fleet: Fleet, requests: Mapping[int, bytes], settings: CohortSettings) -> dict[int, DeviceAnswer]:
    """Return the answers of devices whose students have one architecture; runs in a worker.

    When a computation fails, its devices are computed one by one: the one that fails is named, the others answer.
    """
    if len(requests) > 1 or settings.device != "cpu":
        try:
            with _precision(settings.precision):
                together = _together(fleet, requests, settings)
        except FedstillError:
            raise
        except Exception as error:
            log.warning("devices %s fail together and are computed one by one: %s", [*requests], told(error))
            together = None
        if together is not None:
            return together
    return {number: attempt(fleet, number, request) for number, request in requests.items()}


def _lost(fleet: Fleet, requests: Mapping[int, bytes], settings: CohortSettings) -> dict[int, DeviceAnswer]:
    log.warning("the worker of devices %s was killed; they are computed one by one", [*requests])
    return {}


def _together(fleet: Fleet, requests: Mapping[int, bytes], settings: CohortSettings) -> dict[int, DeviceAnswer] | None:
    """Return the answers, None where the devices can only answer one by one."""
    answers: dict[int, DeviceAnswer] = {}
    rounds: list[tuple[Device, Begun]] = []
    kept: list[Images] = []
    for number, request in requests.items():
        device = fleet.device(number)
        if device is None:
            return None
        begun = device.begin(request)
        if isinstance(begun, DeviceAnswer):
            answers[number] = fleet.leaving(device, begun)
        else:
            shared = tuple(_sharing(lesson, kept) for lesson in begun.lessons)
            rounds.append((device, replace(begun, lessons=shared)))
    if not rounds:
        return answers
    first = rounds[0][0]
    task = first.task
    cohort = Cohort(build(first.architecture, task, seed=0), [begun.student for _, begun in rounds], settings.device)
    most = max(len(begun.lessons) for _, begun in rounds)
    for back in range(most, 0, -1):  # a device without a digest has its last lesson with the others' last
        cohort.teach([begun.lessons[-back] if back <= len(begun.lessons) else None for _, begun in rounds], task)
    asked: dict[bytes, Tensor] = {}  # what several devices are asked about is predicted once for all
    tested = _tested(cohort, rounds, task)
    for place, (device, begun) in enumerate(rounds):
        samples = begun.task.predict.tobytes()
        if samples not in asked:
            asked[samples] = cohort.logits(device.asked_images(begun), task)
        answer = device.finish(begun, cohort.state(place), asked[samples][place], tested[place])
        answers[device.number] = fleet.leaving(device, answer)
    return answers


def _tested(cohort: Cohort, rounds: Sequence[tuple[Device, Begun]], task: Task) -> Tensor:
    """Return each student's logits about what its device is measured on `[students, samples, classes]`."""
    images = [device.test_images(begun) for device, begun in rounds]
    first = rounds[0][0].data.test_images
    if all(device.data.test_images is first for device, _ in rounds):
        return cohort.logits(images[0], task)
    return cohort.own_logits(images, task)


def _sharing(lesson: Lesson, kept: list[Images]) -> Lesson:
    """Return a lesson that shares large images with those kept: all devices of a chunk digest about the same ones."""
    anchor = lesson.anchor
    if anchor is not None:
        anchor = replace(anchor, images=_one_of(kept, anchor.images))
    return replace(lesson, images=_one_of(kept, lesson.images), anchor=anchor)


def _one_of(kept: list[Images], images: Images) -> Images:
    if images.nbytes < LARGE:
        return images
    found = next((other for other in kept if np.array_equal(other, images)), None)
    if found is None:
        kept.append(images)
    return images if found is None else found


@contextmanager
def _precision(wanted: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
