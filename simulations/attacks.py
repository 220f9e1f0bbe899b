"""Hostile virtual devices: packets that pass every check and lie, for simulations only.

The honest device answers as ever; its answer is changed on its way out of the host. Who is hostile, and what they agree
to lie about, derives from the run seed. Hostile devices collude: they flip alike and claim the same class.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from fedstill.config import Settings
from fedstill.packet import Context, decode, encode
from fedstill.rng import stream
from fedstill.rounds import DeviceAnswer
from fedstill.settings import Encoding
from fedstill.soft_labels import Floats, SoftLabels, soft_labels

SMALLEST = 1e-6  # probability below which scaled logits are not told apart


class AttackSettings(Settings):
    """What hostile devices send, each with full certainty."""

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the devices that is hostile."""
    kind: Literal["flip", "shuffle", "scale", "random"] = "flip"
    """`flip`: each class's probability under the next class; `shuffle`: rows among samples; `scale`: logits times
    `factor`; `random`: peaked random rows."""
    factor: float = 10.0
    """Of `scale`: above 1 over-confident, negative the opposite of what the device believes."""
    prior: Literal["honest", "uniform", "false"] = "uniform"
    """Class shares that they claim; `false`: all in one class, the same for all of them."""


@lru_cache(maxsize=8)
def hostile_devices(settings: AttackSettings, devices: int, seed: int) -> frozenset[int]:
    """Return the hostile ones of `devices`: a share of them, drawn by the run seed."""
    count = round(settings.share * devices)
    return frozenset(stream(seed, "attack").permutation(devices)[:count].tolist())


def lies(settings: AttackSettings, rows: Floats, rng: np.random.Generator) -> Floats:
    """Return what a hostile device says instead of `rows` on the simplex `[samples, classes]`."""
    samples, classes = rows.shape
    match settings.kind:
        case "flip":
            return np.roll(rows, 1, axis=1)
        case "shuffle":
            return rows[rng.permutation(samples)]
        case "scale":
            logits = settings.factor * np.log(np.maximum(rows, SMALLEST))
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            scaled: Floats = odds / odds.sum(axis=1, keepdims=True)
            return scaled
        case "random":
            return rng.dirichlet(np.full(classes, 1 / classes), samples).astype(np.float32)


def corrupt(settings: AttackSettings, labels: SoftLabels, seed: int, device: int, round_number: int) -> SoftLabels:
    """Return the soft labels that hostile `device` sends instead of its own in a round."""
    classes = labels.probabilities.shape[1]
    rows = labels.probabilities.copy()
    rows[labels.present] = lies(settings, rows[labels.present], stream(seed, "attack", device, round_number))
    priors = {
        "honest": labels.class_prior,
        "uniform": np.full(classes, 1 / classes, np.float32),
        "false": np.eye(classes, dtype=np.float32)[stream(seed, "attack-class").integers(classes)],
    }
    certainty = np.ones(len(labels.ids), np.float32)
    return soft_labels(
        labels.ids, rows, present=labels.present, certainty=certainty, class_prior=priors[settings.prior]
    )


def hostile_answer(
    settings: AttackSettings, context: Context, encoding: Encoding, device: int, answer: DeviceAnswer
) -> DeviceAnswer:
    """Return a hostile device's answer in place of its honest one; a refusal stays as it is."""
    if not answer.packet:
        return answer
    honest = decode(context, answer.packet)
    packet = encode(
        context,
        corrupt(settings, honest.labels, context.seed, device, honest.round_number),
        round_number=honest.round_number,
        samples_round=honest.round_number,
        encoding=encoding,
        cache_version=honest.cache_version,
    )
    return DeviceAnswer(packet.SerializeToString(deterministic=True), answer.metrics)
