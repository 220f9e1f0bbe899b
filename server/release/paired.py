"""What a change of a model cost, sample by sample."""

import numpy as np

from fedstill.soft_labels import Ints


def paired_interval(before: Ints, after: Ints, labels: Ints) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy lost from `before` to `after`, paired by sample.

    Args:
        before: predicted classes `[samples]`.
        after: predicted classes `[samples]`.
        labels: true classes `[samples]`.
    """
    lost = (before == labels).astype(np.float64) - (after == labels)
    half = 1.96 * lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else 0.0
    return float(lost.mean() - half), float(lost.mean() + half)
