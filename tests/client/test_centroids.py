import numpy as np
import pytest

from client.centroids import Domain, k_means, nearest
from simulations.sources import DIGITS, load_digits


def test_k_means_finds_clusters_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    points = (centres[rng.integers(3, size=300)] + rng.normal(0, 0.3, (300, 2))).astype(np.float32)
    found = k_means(points, 3, np.random.default_rng(1))
    assert nearest(centres, found).max() < 0.2


def test_there_are_no_more_centroids_than_points_even_equal_ones() -> None:
    points = np.ones((4, 2), np.float32)
    assert k_means(points, 9, np.random.default_rng(0)).tolist() == points.tolist()


@pytest.fixture(scope="module")
def specialist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Certainty of a device with zeros and ones about the proxy set, its classes, and the certainty about new ones."""
    arrays = load_digits(None)
    order = np.random.default_rng(0).permutation(len(arrays.train_labels))  # samples of a writer lie together
    images, labels = arrays.train_images[order], arrays.train_labels[order]
    own = np.flatnonzero(labels[:1000] < 2)
    domain = Domain.of(images[own[:110]], images[1000:], 10, DIGITS, np.random.default_rng(0))
    return domain.certainty(images[1000:], DIGITS), labels[1000:], domain.certainty(images[own[110:]], DIGITS)


def test_digits_of_other_classes_are_outside_the_domain(specialist: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    certainty, labels, _ = specialist
    assert certainty.min() >= 0
    assert certainty.max() <= 1
    assert np.mean(certainty[labels > 1] >= 0.1) < 0.2
    assert np.mean(certainty[labels < 2] >= 0.1) > 0.5


def test_of_new_samples_of_the_domain_about_the_threshold_are_left_out(
    specialist: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    assert len(specialist[2]) > 50
    assert np.mean(specialist[2] < 0.1) < 0.2  # 0.1, and the scatter of so few


@pytest.mark.parametrize("count", [2, 6, 10, 16, 19])
def test_a_device_with_few_samples_is_silent_about_most_of_what_is_not_of_their_kind(count: int) -> None:
    arrays = load_digits(None)
    own = arrays.train_images[arrays.train_labels == 3][:count]
    proxy, kinds = arrays.train_images[-400:], arrays.train_labels[-400:]
    domain = Domain.of(own, proxy, 10, DIGITS, np.random.default_rng(0))
    assert np.mean(domain.certainty(proxy, DIGITS)[kinds != 3] >= 0.1) < 0.2


def test_a_device_with_one_sample_knows_nothing_of_its_domain() -> None:
    arrays = load_digits(None)
    domain = Domain.of(arrays.train_images[:1], arrays.train_images[1:50], 10, DIGITS, np.random.default_rng(0))
    assert (domain.certainty(arrays.test_images[:5], DIGITS) == 0).all()
