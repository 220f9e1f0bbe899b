"""What a search found: the Pareto front of those that hold the budget, and the one that is chosen."""

from collections.abc import Sequence

from fedstill.device_classes import Budget
from server.compress.figures import misses
from simulations.compress.search import Tried

RULE = (
    "of the students that hold the budget the most accurate one on the validation samples; "
    "of equally accurate ones the smallest file, then the lowest latency"
)


def holding(tried: Sequence[Tried], budget: Budget) -> list[Tried]:
    """Return those that hold a budget."""
    return [one for one in tried if all(excess <= 0 for excess in one.figures.violations(budget).values())]


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that no other one equals or betters in all of accuracy, size, memory and latency, smallest first.

    Of several with the very same figures the first stays.
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


def choose(front: Sequence[Tried]) -> Tried:
    """Return the one that `RULE` chooses."""
    return min(front, key=lambda one: (-one.figures.accuracy, one.figures.bytes, one.figures.latency_ms, one.number))


def nearest(tried: Sequence[Tried], budget: Budget) -> str:
    """Return in words which of those that miss a budget comes nearest: whose largest excess is the least."""
    one = min(tried, key=lambda one: (max(one.figures.violations(budget).values()), one.number))
    return f"{one.student} in {one.parameters['format']} takes {misses(one.figures, budget)}"


def _costs(one: Tried) -> tuple[float, ...]:
    found = one.figures
    return -found.accuracy, found.bytes, found.memory_bytes, found.latency_ms
