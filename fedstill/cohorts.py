"""Students of one architecture as one computation: their parameters stacked, `[students, ...]` each.

The arithmetic is that of `fedstill.learning`, student by student; only sums inside an operation may be ordered
otherwise. Each student keeps its own random stream, learning rate and number of steps: in a step, students whose
batches and losses have the same form are computed together, and those that are done take no part.
"""

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedstill.descent import EPSILON, MOMENTS
from fedstill.failures import stage
from fedstill.fit import Fit
from fedstill.learning import Lesson, Loss, State, Step, block, normalize, steps
from fedstill.tasks import Images, Task

GPU_BLOCK = 6  # blocks of a core that a GPU predicts at once


class Cohort:
    """Students that learn and predict together.

    Args:
        model: of their architecture, whatever its state; it stays as it is.
        states: the students' parameters and buffers, at least one student's.
        device: torch device that computes them.
    """

    def __init__(self, model: nn.Module, states: Sequence[State], device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._model = copy.deepcopy(model)
        self._size = len(states)
        own = {name: tensor.detach() for name, tensor in model.named_buffers()}  # of those that no state holds
        self._parameters = self._stacked([name for name, _ in model.named_parameters()], states)
        self._buffers = self._stacked(own, [{**own, **state} for state in states])

    def _stacked(self, names: Iterable[str], states: Sequence[State]) -> State:
        return {name: torch.stack([state[name] for state in states]).to(self._device) for name in names}

    def teach(self, lessons: Sequence[Lesson | None], task: Task) -> None:
        """Let each student learn its lesson; None: it has none."""
        self._model.train()
        walks = {place: steps(lesson, task) for place, lesson in enumerate(lessons) if lesson is not None}
        optimizer = _Optimizer(self._parameters)
        names = sorted({lesson.stage for lesson in lessons if lesson is not None})
        number = 0
        with stage("/".join(names), lambda: number):
            while walks:
                number += 1
                taken = {place: step for place, walk in walks.items() if (step := next(walk, None)) is not None}
                walks = {place: walk for place, walk in walks.items() if place in taken}
                for places in _alike(lessons, taken):
                    own = [(lesson, taken[place]) for place in places if (lesson := lessons[place]) is not None]
                    self._step(places, own, optimizer, number)

    def _step(self, places: list[int], own: list[tuple[Lesson, Step]], optimizer: "_Optimizer", number: int) -> None:
        """Take one step of some students, all of the same form."""
        rows = None if len(places) == self._size else torch.tensor(places, device=self._device)
        parameters = {name: _chosen(tensor, rows).requires_grad_() for name, tensor in self._parameters.items()}
        buffers = {name: _chosen(tensor, rows) for name, tensor in self._buffers.items()}
        inputs = torch.stack([step.inputs for _, step in own]).to(self._device)
        logits = vmap(self._forward, randomness="different")(parameters, buffers, inputs)
        gradients = torch.autograd.grad(self._loss(logits, own), list(parameters.values()))
        rates = torch.tensor([step.rate for _, step in own], device=self._device)
        with torch.no_grad():
            for (name, values), gradient in zip(parameters.items(), gradients, strict=True):
                optimizer.step(name, values, gradient, rates, own[0][0].how, rows, number)
                _put(self._parameters[name], values, rows)
            for name, values in buffers.items():  # what the forward pass wrote: a BatchNorm's running statistics
                _put(self._buffers[name], values, rows)

    def _loss(self, logits: Tensor, own: list[tuple[Lesson, Step]]) -> Tensor:
        """Return the sum of the students' losses, whose gradients don't mix `[]`."""
        count = len(own[0][1].rows)
        targets = torch.stack([lesson.targets[step.rows] for lesson, step in own]).to(self._device)
        total = _joint([lesson.loss for lesson, _ in own], self._device)(logits[:, :count], targets).sum()
        anchored = [(lesson.anchor, step) for lesson, step in own if lesson.anchor is not None]
        if anchored:
            targets = torch.stack([anchor.targets[step.anchor_rows] for anchor, step in anchored]).to(self._device)
            values = _joint([anchor.loss for anchor, _ in anchored], self._device)(logits[:, count:], targets)
            total = total + anchored[0][0].weight * values.sum()
        return total

    def _forward(self, parameters: State, buffers: State, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._model, (parameters, buffers), (inputs,))
        return logits

    def logits(self, images: Images, task: Task) -> Tensor:
        """Return all students' logits about un-augmented images in eval mode `[students, samples, classes]`."""
        return self._predicted(len(images), lambda part: normalize(images[part], task), None, task)

    def own_logits(self, images: Sequence[Images], task: Task) -> Tensor:
        """Return each student's logits about images of its own, of all as many `[students, samples, classes]`."""
        return self._predicted(
            len(images[0]), lambda part: torch.stack([normalize(own[part], task) for own in images]), 0, task
        )

    @torch.no_grad()
    def _predicted(self, samples: int, inputs: Callable[[slice], Tensor], dim: int | None, task: Task) -> Tensor:
        self._model.eval()
        batch = block(task) * (1 if self._device.type == "cpu" else GPU_BLOCK)
        predict = vmap(self._forward, in_dims=(0, 0, dim), randomness="different")
        parts = [
            predict(self._parameters, self._buffers, inputs(slice(start, start + batch)).to(self._device))
            for start in range(0, samples, batch)
        ]
        return torch.cat(parts, dim=1).cpu() if parts else torch.zeros(self._size, 0, task.classes)

    def state(self, place: int) -> State:
        """Return a copy of one student's parameters and buffers, in the order of its model's."""
        stacked = {**self._parameters, **self._buffers}
        return {name: stacked[name][place].cpu().clone() for name in self._model.state_dict()}


class _Optimizer:
    """SGD and AdamW as torch has them, on stacked parameters and with a learning rate for each student.

    Args:
        parameters: `[students, ...]` each; what it keeps about them starts at zero.
    """

    def __init__(self, parameters: State) -> None:
        self._parameters = parameters
        self._kept: dict[tuple[str, int], Tensor] = {}

    def step(
        self, name: str, values: Tensor, gradient: Tensor, rates: Tensor, how: Fit, rows: Tensor | None, number: int
    ) -> None:
        """Change `values` in place.

        Args:
            name: of the parameter.
            values: of the students `rows` `[students, ...]`.
            gradient: likewise.
            rates: learning rates `[students]`.
            how: kind of optimizer, momentum and weight decay.
            rows: which students; None: all.
            number: of the step, from 1; a student that takes part has taken all before it.
        """
        rate = rates.view(-1, *[1] * (values.dim() - 1))
        if how.optimizer == "sgd":
            change = gradient + how.weight_decay * values if how.weight_decay else gradient
            if how.momentum:
                momentum = self._moved(name, 0, lambda kept: how.momentum * kept + change, rows)
                change = change + how.momentum * momentum
            values.sub_(rate * change)
            return
        first, second = MOMENTS
        mean = self._moved(name, 0, lambda kept: kept.lerp(gradient, 1 - first), rows)
        square = self._moved(name, 1, lambda kept: second * kept + (1 - second) * gradient * gradient, rows)
        values.mul_(1 - rate * how.weight_decay)
        spread = square.sqrt() / (1 - second**number) ** 0.5 + EPSILON
        values.sub_(rate / (1 - first**number) * mean / spread)

    def _moved(self, name: str, which: int, move: Callable[[Tensor], Tensor], rows: Tensor | None) -> Tensor:
        if (name, which) not in self._kept:
            self._kept[name, which] = torch.zeros_like(self._parameters[name])
        kept = self._kept[name, which]
        moved = move(_chosen(kept, rows))
        kept[slice(None) if rows is None else rows] = moved
        return moved


def _chosen(stacked: Tensor, rows: Tensor | None) -> Tensor:
    """Return some students' part as a copy, or with None all of it as it is."""
    return stacked.detach() if rows is None else stacked.detach().index_select(0, rows)


def _put(stacked: Tensor, values: Tensor, rows: Tensor | None) -> None:
    if rows is not None:
        stacked[rows] = values.detach()


def _alike(lessons: Sequence[Lesson | None], taken: dict[int, Step]) -> Iterator[list[int]]:
    """Yield the students whose steps have the same shapes, optimizer and losses, places ascending."""
    groups: dict[Hashable, list[int]] = {}
    for place, step in taken.items():
        lesson = lessons[place]
        if lesson is None:
            continue
        how, anchor = lesson.how, lesson.anchor
        second = None if anchor is None else (anchor.weight, _form(anchor.loss))
        optimizer = (how.optimizer, how.momentum, how.weight_decay)
        key = (len(step.rows), step.inputs.shape, optimizer, _form(lesson.loss), second)
        groups.setdefault(key, []).append(place)
    yield from groups.values()


def _form(loss: Loss) -> Hashable:
    """Return what losses have in common that one call can compute: all but the tensors they are bound to."""
    if not isinstance(loss, partial) or loss.args:
        return loss
    bound = ((name, value.shape if isinstance(value, Tensor) else value) for name, value in loss.keywords.items())
    return loss.func, tuple(bound)


def _joint(losses: Sequence[Loss], device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the losses, all of one form, as one: logits `[students, batch, classes]`, targets, to `[students]`."""
    first = losses[0]
    if not isinstance(first, partial) or first.args:
        return vmap(first)
    tensors = [name for name, value in first.keywords.items() if isinstance(value, Tensor)]
    stacked = [torch.stack([loss.keywords[name] for loss in losses]).to(device) for name in tensors]  # type: ignore[attr-defined]
    others = {name: value for name, value in first.keywords.items() if name not in tensors}

    def one(logits: Tensor, targets: Tensor, *bound: Tensor) -> Tensor:
        value: Tensor = first.func(logits, targets, **others, **dict(zip(tensors, bound, strict=True)))
        return value

    return lambda logits, targets: vmap(one)(logits, targets, *stacked)
