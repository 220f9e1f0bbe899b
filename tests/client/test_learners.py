"""What every learner promises, whatever it learns with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tomli_w

from client.agent.carrier import Carrier
from client.home import Home
from client.learner import Learner
from fedstill.exchange import ServerExchange
from fedstill.packet import decode
from fedstill.rounds import DeviceAnswer
from fedstill.settings import LearnerKind
from fedstill.soft_labels import SoftLabels
from simulations.backbones import make_backbones
from simulations.deployed import device_plan
from simulations.host import make_learner
from simulations.scenario import Scenario, load_scenario
from simulations.shelf import Shelf, open_shelf
from tests.conftest import SMALL

KINDS = get_args(LearnerKind)
"""In the order of the scenario's classes: device n learns as the n-th kind."""
MIXED = (
    *SMALL,
    "rounds=3",
    "exchange.entropy_coding=true",
    "exchange.delta=true",
    "teacher.initial.epochs=30",
    "device.first_digest.epochs=60",
    "device.revisit.epochs=4",
    "device_classes.pi5.student='tiny-conv-s'",
    "device_classes.pi4.student='tiny-conv-s'",
    "device_classes.pi4.learner='head'",
    "device_classes.zero2w.student='tiny-conv-s'",
    "device_classes.zero2w.learner='observer'",
    "device_classes.mcu.student='tiny-conv-s'",
)


@pytest.fixture(scope="module")
def mixed() -> Scenario:
    return load_scenario("digits", MIXED)


@pytest.fixture(scope="module")
def shelf(mixed: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    found = open_shelf(tmp_path_factory.mktemp("learners") / "assets", mixed)
    make_backbones(mixed, found)
    return found


def exchange_of(scenario: Scenario, shelf: Shelf) -> ServerExchange:
    wire = scenario.exchange
    context = shelf.context(scenario.seed, 10)
    exchange = ServerExchange(
        context, wire.per_round, scenario.rounds, wire.downlink, entropy_coded=wire.entropy_coding, delta=wire.delta
    )
    rows = np.random.default_rng(0).dirichlet(np.ones(10), len(shelf.proxy)).astype(np.float32)
    exchange.publish(0, np.arange(len(shelf.proxy)), rows)
    return exchange


@pytest.mark.parametrize("kind", KINDS)
class TestEachLearner:
    @pytest.fixture(autouse=True)
    def _place(self, mixed: Scenario, shelf: Shelf, kind: LearnerKind, tmp_path: Path) -> None:
        self.scenario, self.shelf, self.kind, self.folder = mixed, shelf, kind, tmp_path
        self.number = KINDS.index(kind)
        self.exchange = exchange_of(mixed, shelf)

    def learner(self) -> Learner:
        """Return the device as a process that has just started makes it."""
        return make_learner(self.scenario, self.shelf, self.number, self.folder)

    def ask(self, own: Learner, round_number: int) -> DeviceAnswer:
        return own.answer(self.exchange.request(self.number, round_number))

    def conclude(self, round_number: int, answer: DeviceAnswer) -> SoftLabels:
        labels = self.exchange.accept(self.number, round_number, answer.packet)
        self.exchange.publish(round_number, labels.ids, labels.probabilities)
        return labels

    def test_it_answers_about_what_it_is_asked_and_measures_itself(self) -> None:
        answer = self.ask(self.learner(), 1)
        labels = decode(self.exchange.context, answer.packet, round_number=1, ids=self.exchange.ids(1)).labels
        assert np.abs(labels.probabilities.sum(axis=1) - 1).max() < 1e-3
        assert 0 <= answer.metrics["accuracy"] <= 1
        assert (answer.metrics["steps"] > 0) == (self.kind != "observer")
        assert (labels.class_prior is not None) == (self.kind != "observer")

    def test_a_repeated_round_is_answered_from_what_was_done(self) -> None:
        request = self.exchange.request(self.number, 1)
        first = self.learner().answer(request)
        before = {path: path.stat().st_mtime_ns for path in self.folder.rglob("round-*")}
        assert self.learner().answer(request) == first
        assert before
        assert {path: path.stat().st_mtime_ns for path in self.folder.rglob("round-*")} == before

    def test_it_goes_on_from_its_state_as_if_it_had_not_been_ended(self) -> None:
        answers: list[list[DeviceAnswer]] = []
        for restarted in (True, False):
            self.folder, self.exchange = self.folder / str(restarted), exchange_of(self.scenario, self.shelf)
            own, said = self.learner(), []
            for round_number in (1, 2, 3):
                said.append(self.ask(own, round_number))
                self.conclude(round_number, said[-1])
                own = self.learner() if restarted else own
            answers.append(said)
        assert answers[0] == answers[1]
        assert answers[0][0].packet != answers[0][2].packet

    def test_a_damaged_state_is_passed_over_for_the_one_before(self) -> None:
        for round_number in (1, 2):
            self.conclude(round_number, self.ask(self.learner(), round_number))
        states = sorted(self.folder.rglob("round-*"))
        assert len(states) == 2
        content = bytearray(states[1].read_bytes())
        content[len(content) // 2] ^= 1
        states[1].write_bytes(content)
        answer = self.ask(self.learner(), 3)
        assert (bool(answer.refusal), answer.held_version) == (True, 1)
        self.exchange.refused(self.number, answer.held_version)
        assert not self.ask(self.learner(), 3).refusal

    def test_one_that_lost_its_disk_refuses_tells_its_version_and_catches_up(self) -> None:
        self.conclude(1, self.ask(self.learner(), 1))
        self.folder = self.folder / "new"
        answer = self.ask(self.learner(), 2)
        assert answer.refusal
        assert answer.packet == b""
        self.exchange.refused(self.number, answer.held_version)
        assert not self.ask(self.learner(), 2).refusal

    @pytest.mark.parametrize("request_bytes", [b"", b"\xff", b"\x08\x01\x10\x05\x18\x01\x20\x01"])
    def test_a_malformed_request_is_refused_and_changes_nothing(self, request_bytes: bytes) -> None:
        assert self.learner().answer(request_bytes).refusal
        assert not list(self.folder.rglob("round-*"))


def test_a_head_learns_what_the_observer_beside_it_does_not(mixed: Scenario, shelf: Shelf, tmp_path: Path) -> None:
    exchange = exchange_of(mixed, shelf)
    scores = {}
    for kind in ("head", "observer"):
        number = KINDS.index(kind)
        scores[kind] = make_learner(mixed, shelf, number, tmp_path).answer(exchange.request(number, 1)).metrics
    assert scores["head"]["steps"] > scores["observer"]["steps"] == 0
    assert scores["observer"]["accuracy"] > 0.3  # what the server's labels taught the backbone
    assert scores["head"]["accuracy"] != scores["observer"]["accuracy"]


@pytest.mark.parametrize("kind", ["head", "observer"])
def test_the_agent_of_a_board_answers_what_the_simulated_device_does(
    kind: str, mixed: Scenario, shelf: Shelf, tmp_path: Path
) -> None:
    number = KINDS.index(kind)
    home, private = Home(tmp_path / "home"), shelf.of_device(number)
    home.folder.mkdir()
    np.savez(tmp_path / "private.npz", image=private.images, label=private.labels)
    np.savez(tmp_path / "test.npz", image=shelf.test.images, label=shelf.test.labels)
    (tmp_path / "data.toml").write_text('format = "npz"\npath = "private.npz"\ntest = "test.npz"\n')
    config = {
        "number": number,
        "device_class": mixed.class_of(number),
        "superlink": "localhost:1",
        "data": str(tmp_path / "data.toml"),
        "proxy": str(shelf.proxy_path),
        "backbone": str(shelf.backbone_path(mixed.class_of(number))),
    }
    home.config_path.write_text(tomli_w.dumps(config))
    plan, request = device_plan(mixed, shelf), exchange_of(mixed, shelf).request(number, 1)
    answers = Carrier(home).answer("run-1", plan.model_dump_json(exclude_none=True), {number: request})
    assert answers == {number: make_learner(mixed, shelf, number, tmp_path / "simulated").answer(request)}
    assert answers[number].packet
    other = shelf.backbone_path(mixed.class_of(number)).read_bytes()[:-1]
    (tmp_path / "other.onnx").write_bytes(other)
    home.config_path.write_text(tomli_w.dumps({**config, "backbone": str(tmp_path / "other.onnx")}))
    refused = Carrier(home).answer("run-2", plan.model_dump_json(exclude_none=True), {number: request})[number]
    assert refused.refusal == "the device's data or proxy set can't be used; see its log"


def test_no_learner_but_torchs_imports_torch() -> None:
    code = """
import sys, json
import client.agent.__main__, client.app, client.shim, client.learners, client.light.device
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert "client.light.device" in modules
    assert modules.isdisjoint({"torch", "onnx", "PIL", "pyarrow", "client.device"})
