"""Certainty by k-means: whether a proxy sample lies in the device's domain, without any learning of the student.

EdgeFD (Mujtaba, Radchenko, Prodan and Masana 2025, "Federated Distillation on Edge Devices: Efficient Client-Side
Filtering for Non-IID Data", arXiv 2508.14769) replaces Selective-FD's kernel density ratio by k-means, which a small
device can afford. With mu the centroids of private samples, nu as many of the proxy set, in normalized pixels:

    r(x) = min_j |x - nu_j| / min_i |x - mu_i|,

large where the device's own samples are denser than the proxy set's. What r is large enough differs between data sets
and devices; so half of the private samples are left out of the centroids, and the certainty of x is the share of those
whose r is not larger, (1 + #{r_i <= r(x)}) / (1 + n), and 0 where all are larger. Of samples of the device's own
distribution at most a part `t` has a certainty below t (conformal prediction, Vovk, Gammerman and Shafer 2005), or
1 / (1 + n) where that is more, so the threshold needs no tuning. Of proxy samples it is more, as these made the proxy
set's centroids. Without the 0 a device with few samples would never fall below a threshold, and speak about everything.
"""

from dataclasses import dataclass

import numpy as np

from fedstill.learning import normalize
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task

ITERATIONS = 20
PROXY = 2000  # proxy samples that its centroids are made of: more change little and cost a small device time
SMALLEST = 1e-6  # distance below which a sample is its centroid


def k_means(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return centroids by Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii 2007, SODA) `[k, features]`.

    Args:
        points: `[samples, features]`, at least one.
        k: centroids; no more than there are points.
        rng: of the seeds.
    """
    k = min(k, len(points))
    centroids = points[rng.integers(len(points), size=1)]
    while len(centroids) < k:
        far = nearest(points, centroids) ** 2
        share = far / far.sum() if far.sum() > 0 else None
        centroids = np.concatenate([centroids, points[rng.choice(len(points), size=1, p=share)]])
    for _ in range(ITERATIONS):
        own = _squared(points, centroids).argmin(axis=1)
        moved = centroids.copy()
        for place in range(k):
            if (own == place).any():  # an empty cluster stays where it is
                moved[place] = points[own == place].mean(axis=0)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _squared(points: Floats, centroids: Floats) -> Floats:
    lengths = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)
    found: Floats = np.maximum(lengths - 2 * points @ centroids.T, 0)
    return found


def nearest(points: Floats, centroids: Floats) -> Floats:
    """Return the distance of each point to the nearest centroid `[samples]`."""
    found: Floats = np.sqrt(_squared(points, centroids).min(axis=1))
    return found


@dataclass(frozen=True)
class Domain:
    """What a device knows of its domain.

    Attributes:
        own: mu, centroids of private samples `[k, features]`.
        proxy: nu, centroids of the proxy set `[k, features]`.
        left_out: r of the private samples that made no centroid, ascending `[n]`.
    """

    own: Floats
    proxy: Floats
    left_out: Floats

    @staticmethod
    def of(private: Images, proxy: Images, k: int, task: Task, rng: np.random.Generator) -> "Domain":
        """Fit the centroids.

        Args:
            private: the device's images, at least one.
            proxy: the proxy set.
            k: centroids of either.
            task: for the normalization.
            rng: of the halves and the seeds.
        """
        order = rng.permutation(len(private))
        fitted = (len(private) + 1) // 2
        own = k_means(_points(private[order[:fitted]], task), k, rng)
        chosen = np.sort(rng.permutation(len(proxy))[:PROXY])
        others = k_means(_points(proxy[chosen], task), len(own), rng)
        left_out = _points(private[order[fitted:]], task)
        return Domain(own, others, np.sort(_ratio(left_out, own, others)))

    def certainty(self, images: Images, task: Task) -> Floats:
        """Return the certainty that images are of the domain, in 0..1 `[samples]`."""
        found = _ratio(_points(images, task), self.own, self.proxy)
        below = np.searchsorted(self.left_out, found, side="right")
        return np.where(below > 0, (1 + below) / (1 + len(self.left_out)), 0).astype(np.float32)


def _points(images: Images, task: Task) -> Floats:
    points: Floats = normalize(images, task).flatten(start_dim=1).numpy()
    return points


def _ratio(points: Floats, own: Floats, others: Floats) -> Floats:
    return np.asarray(nearest(points, others) / np.maximum(nearest(points, own), SMALLEST), dtype=np.float32)
