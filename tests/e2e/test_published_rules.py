"""Baselines that follow a paper do in a run what the paper says, by their devices' packets and the server's labels."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.disk import unpacked
from fedstill.cache import LabelCache
from fedstill.packet import decode
from fedstill.soft_labels import Floats, Ints
from fedstill.stored import load_cache
from server.checkpoints import STATE
from simulations.how import Engine, How
from simulations.launch import launch, prepare
from simulations.methods import load_method
from simulations.shelf import open_shelf

ONE_STUDENT = ["device_classes={all = {student = 'tiny-separable-s'}}", "references.local_only=0"]


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes:
        rows: of its rounds.
        votes: soft labels of the last round `[devices, samples, classes]`.
        present: whether a device gave one `[devices, samples]`.
        ids: of the samples.
        before: the server's labels before it.
        cache: those after it.
    """

    rows: list[dict[str, Any]]
    votes: Floats
    present: np.ndarray
    ids: Ints
    before: LabelCache
    cache: LabelCache


def run(method: str, small_options: list[str], out: Path, *changes: str) -> Run:
    scenario = load_method("digits", method, [*small_options[1::2], *ONE_STUDENT, *changes])
    prepare(scenario, out)
    launch(out, How(Engine.local, hosts=1, workers=1, table=False))
    before, cache = (
        load_cache(torch.load(path / STATE, weights_only=True)) for path in sorted((out / "checkpoints").iterdir())
    )
    context = open_shelf(out / "assets", scenario).context(scenario.seed, 10)
    files = sorted((out / "devices").glob(f"*/round-{scenario.rounds:05d}.state"))
    packets = [unpacked(path.read_bytes()).answer.packet for path in files]
    labels = [
        decode(context, packet, changed=before.changed).labels for packet in packets if not scenario.exchange.delta
    ]
    return Run(
        [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()],
        np.array([each.probabilities for each in labels]),
        np.array([each.present for each in labels]),
        labels[0].ids if labels else np.empty(0, np.int64),
        before,
        cache,
    )


def test_dsfl_publishes_the_mean_of_the_votes_through_a_softmax_of_low_temperature(
    small_options: list[str], tmp_path: Path
) -> None:
    found = run("dsfl", small_options, tmp_path / "run")
    sharpened = np.exp(found.votes.mean(axis=0) / 0.1)
    expected = sharpened / sharpened.sum(axis=1, keepdims=True)
    assert np.allclose(found.cache.labels[found.ids], expected, atol=1e-5)


def test_cfd_sends_one_bit_labels_both_ways_at_log2_of_the_classes_each(
    small_options: list[str], tmp_path: Path
) -> None:
    found = run("cfd", small_options, tmp_path / "run", "rounds=3")
    known = found.cache.labels[found.cache.changed > 0]
    assert len(known) > 30
    assert (np.sort(known, axis=1)[:, -1] == 1).all()
    assert (known.sum(axis=1) == 1).all()
    sent = np.diff([0, *(row["uplink_bytes"] for row in found.rows)])
    around = 48  # bytes of a packet at most beside its labels: run, round, digest, versions, checksum
    assert (sent <= 4 * (30 * math.log2(10) / 8 + around)).all()


def test_scarlet_asks_about_no_label_younger_than_its_duration_and_sharpens_by_a_power(
    small_options: list[str], tmp_path: Path
) -> None:
    found = run("scarlet", small_options, tmp_path / "run", "rounds=4", "exchange.duration=2")
    powers = found.votes.mean(axis=0) ** 1.5
    assert np.allclose(found.cache.labels[found.ids], powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    assert found.rows[0]["asked"] == 30  # nothing had a label
    assert found.rows[-1]["asked"] == len(found.ids) < 30
    fresh = (found.before.changed > 0) & (found.before.version - found.before.changed < 1)
    assert fresh.any()
    assert not fresh[found.ids].any()


def test_selective_fd_averages_who_is_at_home_and_drops_what_stays_ambiguous(
    small_options: list[str], tmp_path: Path
) -> None:
    settings = ["device.first_digest.min_steps=60", "device.revisit.min_steps=60", "partition.alpha=0.3"]
    found = run("selective-fd", small_options, tmp_path / "run", *settings)
    assert 0 < found.present.mean() < 1
    voted = found.present.any(axis=0)
    weights = found.present / np.maximum(found.present.sum(axis=0), 1)
    mean = np.einsum("ds,dsc->sc", weights, found.votes)
    published = np.isin(found.ids, np.flatnonzero(found.cache.changed == found.cache.version))
    ambiguity = 2 * (1 - mean.max(axis=1))
    kept, dropped = ambiguity[published & voted], ambiguity[~published & voted]
    assert not (published & ~voted).any()
    assert len(kept)
    assert len(dropped)
    assert kept.max() <= dropped.min()
    assert np.allclose(found.cache.labels[found.ids[published]], mean[published], atol=1e-5)


def test_fedmd_publishes_the_plain_mean_of_devices_that_first_learned_from_a_teacher(
    small_options: list[str], tmp_path: Path
) -> None:
    found = run("fedmd", small_options, tmp_path / "run")
    assert found.present.all()
    assert np.allclose(found.cache.labels[found.ids], found.votes.mean(axis=0), atol=1e-5)
    assert found.before.changed.all()  # the teacher's about the whole proxy set


def test_edgefd_averages_who_is_at_home_and_publishes_nothing_where_nobody_is(
    small_options: list[str], tmp_path: Path
) -> None:
    settings = ["partition.alpha=0.3", "device.abstain_below=0.5"]  # so that four devices leave samples to nobody
    found = run("edgefd", small_options, tmp_path / "run", *settings)
    voted = found.present.any(axis=0)
    assert 0 < found.present.mean() < 1
    assert not voted.all()
    published = np.isin(found.ids, np.flatnonzero(found.cache.changed == found.cache.version))
    assert np.array_equal(published, voted)
    mean = np.einsum("ds,dsc->sc", found.present / np.maximum(found.present.sum(axis=0), 1), found.votes)
    assert np.allclose(found.cache.labels[found.ids[voted]], mean[voted], atol=1e-5)


@pytest.mark.parametrize("method", ["dsfl", "cfd", "scarlet", "selective-fd", "edgefd"])
def test_none_of_them_has_a_teacher_or_tells_its_classes(method: str) -> None:
    found = load_method("mnist", method)
    assert found.teacher is None
    assert not found.device.send_class_prior
    assert found.device.logit_adjustment == 0
