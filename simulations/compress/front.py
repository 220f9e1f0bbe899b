"""What a search found: the Pareto front of those that hold the budget, and the one that is chosen."""

import math
from collections.abc import Sequence

from fedstill.device_classes import Budget
from server.compress.figures import misses
from simulations.compress.search import Tried

RULE = (
    "of the students that hold the budget and whose accuracy on the validation samples is within a standard error of "
    "the best, the one with the least cross-entropy there"
)


def holding(tried: Sequence[Tried], budget: Budget) -> list[Tried]:
    """Return those that hold a budget."""
    return [one for one in tried if all(excess <= 0 for excess in one.figures.violations(budget).values())]


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that no other one equals or betters in all of worth, size, memory and latency, smallest first.

    What one is worth is its accuracy and its cross-entropy. Of several with the very same figures the first stays.
    """
    costs = [_costs(one) for one in tried]
    front = [
        one
        for place, (one, own) in enumerate(zip(tried, costs, strict=True))
        if not any(
            all(other <= mine for other, mine in zip(rival, own, strict=True)) and (rival != own or number < place)
            for number, rival in enumerate(costs)
            if number != place
        )
    ]
    return sorted(front, key=lambda one: (one.figures.bytes, one.number))


def choose(held: Sequence[Tried], samples: int) -> Tried:
    """Return the one that `RULE` chooses.

    The standard error is that of a share of `samples`, with two right and two wrong answers added (Agresti and Coull
    1998): otherwise a student without a mistake on a few samples would have none.

    Args:
        held: those that hold the budget.
        samples: validation samples.
    """
    best = max(one.figures.accuracy for one in held)
    share = (best * samples + 2) / (samples + 4)
    error = math.sqrt(share * (1 - share) / (samples + 4))
    alike = [one for one in held if one.figures.accuracy >= best - error]
    return min(alike, key=lambda one: (one.figures.cross_entropy, *_costs(one), one.number))


def nearest(tried: Sequence[Tried], budget: Budget) -> str:
    """Return in words which of those that miss a budget comes nearest: whose largest excess is the least."""
    one = min(tried, key=lambda one: (max(one.figures.violations(budget).values()), one.number))
    return f"{one.student} in {one.parameters['format']} takes {misses(one.figures, budget)}"


def _costs(one: Tried) -> tuple[float, ...]:
    found = one.figures
    return -found.accuracy, found.cross_entropy, found.bytes, found.memory_bytes, found.latency_ms
