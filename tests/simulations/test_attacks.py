from pathlib import Path

import numpy as np
import pytest

from fedstill.exchange import ServerExchange
from fedstill.packet import Context, decode, encode
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import draw, soft_labels
from simulations.attacks import AttackSettings, corrupt, hostile_answer, hostile_devices
from simulations.host import answer_device
from simulations.scenario import Scenario, dump, load_scenario
from simulations.setup import Setup
from simulations.shelf import open_shelf

CONTEXT = Context(seed=3, proxy_digest=b"12345678", proxy_size=40, classes=4)
IDS = draw(3, 1, 40, 20)
ROWS = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
PRESENT = np.arange(20) != 5
HONEST = soft_labels(IDS, ROWS, present=PRESENT, class_prior=np.array([0.7, 0.3, 0, 0], np.float32))


def attack(**changes: object) -> AttackSettings:
    return AttackSettings.model_validate({"share": 0.2, **changes})


@pytest.mark.parametrize("kind", ["flip", "shuffle", "scale", "random"])
def test_a_hostile_packet_passes_every_check_with_full_certainty(kind: str) -> None:
    packet = encode(CONTEXT, HONEST, round_number=1, samples_round=1, encoding="simplex8", cache_version=1)
    honest = DeviceAnswer(packet.SerializeToString(), {"accuracy": 0.5})
    answer = hostile_answer(attack(kind=kind, prior="false"), CONTEXT, "simplex8", 2, honest)
    sent = decode(CONTEXT, answer.packet, round_number=1, ids=IDS)
    assert sent.cache_version == 1
    assert sent.labels.certainty is not None
    assert (sent.labels.certainty[PRESENT] == 1).all()
    assert np.array_equal(sent.labels.present, PRESENT)
    assert sent.labels.class_prior is not None
    assert sent.labels.class_prior.max() == 1
    assert np.abs(sent.labels.probabilities - HONEST.probabilities).max() > 0.1
    assert answer.metrics == honest.metrics
    assert hostile_answer(attack(kind=kind, prior="false"), CONTEXT, "simplex8", 2, honest) == answer


def test_a_refusal_stays_a_refusal() -> None:
    refusal = DeviceAnswer(b"", {}, "stale", 1)
    assert hostile_answer(attack(), CONTEXT, "simplex8", 0, refusal) == refusal


def test_each_kind_lies_as_it_says() -> None:
    def said(**changes: object) -> np.ndarray:
        return np.asarray(corrupt(attack(**changes), HONEST, 3, 0, 1).probabilities[PRESENT])

    own = HONEST.probabilities[PRESENT]
    assert np.array_equal(said(kind="flip"), np.roll(own, 1, axis=1))
    assert np.array_equal(np.sort(said(kind="shuffle"), axis=0), np.sort(own, axis=0))
    assert np.array_equal(said(kind="scale").argmax(axis=1), own.argmax(axis=1))
    assert (said(kind="scale").max(axis=1) >= own.max(axis=1)).all()
    assert np.array_equal(said(kind="scale", factor=-1.0).argmax(axis=1), own.argmin(axis=1))
    assert said(kind="random").max(axis=1).mean() > 0.6


def test_who_is_hostile_follows_from_the_seed() -> None:
    chosen = hostile_devices(attack(), 20, seed=0)
    assert len(chosen) == 4
    assert chosen == hostile_devices(attack(), 20, seed=0)
    assert chosen != hostile_devices(attack(), 20, seed=1)
    assert not hostile_devices(AttackSettings(), 20, seed=0)


def test_only_hostile_devices_of_a_scenario_lie(small: Scenario, tmp_path: Path) -> None:
    hostile = small.model_copy(update={"attack": attack(share=0.25, prior="false")})
    (liar,) = hostile_devices(hostile.attack, hostile.devices, hostile.seed)
    shelf = open_shelf(tmp_path / "assets", small)
    context = shelf.context(small.seed, 10)
    exchange = ServerExchange(context, small.exchange.per_round, small.rounds)
    exchange.publish(0, np.arange(60), np.full((60, 10), 0.1, np.float32))
    for device in (liar, (liar + 1) % small.devices):
        request = exchange.request(device, 1)
        setups = [Setup(scenario, tmp_path, 1, "local") for scenario in (small, hostile)]
        plain, attacked = (decode(context, answer_device(setup, device, request).packet).labels for setup in setups)
        assert np.array_equal(plain.probabilities, attacked.probabilities) == (device != liar)
        assert (attacked.certainty is None) == (device != liar)


def test_a_scenario_with_an_attack_reads_back_equal(tmp_path: Path) -> None:
    scenario = load_scenario("digits", ["attack.share=0.2", "attack.kind=scale", "attack.factor=-1.0"])
    (tmp_path / "config.toml").write_text(dump(scenario))
    assert load_scenario(str(tmp_path / "config.toml")) == scenario
