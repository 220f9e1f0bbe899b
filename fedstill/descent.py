"""Steps of SGD and AdamW, torch's own functions without its `Optimizer` class.

The first object of that class makes torch import its compiler (`torch._dynamo`): seconds and 70 MB in each process, for
nothing that is used here. The functions compute the same bits.
"""

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fedstill.fit import Fit

MOMENTS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, torch's defaults
FEW = 8  # tensors up to which a loop over them costs less than torch's calls for lists; the bits are the same


class Descent:
    """An optimizer of a model's parameters, those that have a gradient.

    Args:
        model: what is trained, in place.
        how: kind of optimizer, momentum and weight decay; `sgd` is Nesterov's where it has momentum.
    """

    def __init__(self, model: nn.Module, how: Fit) -> None:
        self._parameters = list(model.parameters())
        self._how = how
        self._momenta: dict[int, Tensor | None] = {}
        self._averages: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def forget(self) -> None:
        """Drop the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step.

        Args:
            rate: learning rate.
        """
        places = [place for place, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters: list[Tensor] = [self._parameters[place] for place in places]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self._how.optimizer == "sgd":
            self._sgd(places, parameters, gradients, rate)
        else:
            self._adamw(places, parameters, gradients, rate)

    def _sgd(self, places: list[int], parameters: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        momenta = [self._momenta.get(place) for place in places]
        sgd(
            parameters,
            gradients,
            momenta,
            weight_decay=self._how.weight_decay,
            momentum=self._how.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=self._how.momentum > 0,
            maximize=False,
            foreach=len(places) > FEW,
        )
        self._momenta.update(zip(places, momenta, strict=True))

    def _adamw(self, places: list[int], parameters: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        for place, parameter in zip(places, parameters, strict=True):
            if place not in self._averages:
                self._averages[place] = (torch.zeros_like(parameter), torch.zeros_like(parameter), torch.tensor(0.0))
        means, squares, counts = (list(part) for part in zip(*(self._averages[place] for place in places), strict=True))
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            amsgrad=False,
            beta1=MOMENTS[0],
            beta2=MOMENTS[1],
            lr=rate,
            weight_decay=self._how.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
