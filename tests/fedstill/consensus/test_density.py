import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstill.consensus import RULES, Votes

density_experts = RULES["density-experts"]


def votes(rows: list[list[float]], certainty: list[float], priors: list[list[float]]) -> Votes:
    """Votes of devices about one sample."""
    return Votes(
        probabilities=np.array(rows, dtype=np.float32)[:, None],
        present=np.array(certainty)[:, None] > 0,
        certainty=np.array(certainty, dtype=np.float32)[:, None],
        class_priors=np.array(priors, dtype=np.float32),
    )


def test_a_class_whose_holders_were_not_asked_stays_undecided() -> None:
    strangers = votes([[1, 0, 0], [0, 1, 0]], [0.1, 0.1], [[1, 0, 0], [0, 1, 0]])
    assert not density_experts(strangers).covered.any()


def test_the_holder_of_a_class_decides_against_strangers_who_are_unsure() -> None:
    found = density_experts(votes([[1, 0, 0], [0, 1, 0], [0, 1, 0]], [0.9, 0.1, 0.1], np.eye(3)[[0, 1, 1]].tolist()))
    assert found.covered.all()
    assert found.labels[0].argmax() == 0


def test_an_abstention_is_a_word_against_the_classes_that_a_device_holds() -> None:
    alone = votes([[1, 0]], [0.9], [[1, 0]])
    contradicted = votes([[1, 0], [0, 0], [0, 0]], [0.9, 0, 0], [[1, 0]] * 3)
    assert density_experts(alone).covered.all()
    assert not density_experts(contradicted).covered.any()


def test_a_device_with_few_samples_of_a_class_can_not_decide_it_against_those_with_many() -> None:
    liar, holder = [0.02, 0.98], [1.0, 0.0]
    found = density_experts(votes([[0, 1], [1, 0]], [1, 0.9], [holder, liar]))
    assert not found.covered.any()  # the first holds none of class 1, the second hardly any of class 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 20), st.integers(2, 8))
def test_labels_are_on_the_simplex_where_covered_and_zero_elsewhere(
    seed: int, devices: int, samples: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random((devices, samples)) < 0.7
    rows = rng.dirichlet(np.full(classes, 0.2), (devices, samples)).astype(np.float32) * present[:, :, None]
    priors = rng.dirichlet(np.full(classes, 0.3), devices).astype(np.float32)
    found = density_experts(Votes(rows, present, rng.random((devices, samples)).astype(np.float32), priors))
    assert np.allclose(found.labels.sum(axis=1), found.covered, atol=1e-5)
    assert (found.labels >= 0).all()
    assert not found.covered[~present.any(axis=0)].any()
