"""The agent behind its socket, asked by the shim, as in a deployment but for Flower between them."""

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tomli_w
from flwr.app import Context, Message, RecordDict

from client.agent.carrier import KEPT_RUNS, PLAN, Carrier
from client.agent.service import serve
from client.app import app
from client.home import Home
from client.shim import AgentHost, build
from client.status import device_rows
from fedstill.errors import ConfigError
from fedstill.exchange import ServerExchange
from fedstill.flower.adapter import identify_server
from fedstill.plan import DevicePlan
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc as rpc
from simulations.deployed import device_plan
from simulations.device_folders import PROXY, write_device_folders
from simulations.host import make_device
from simulations.scenario import Scenario
from simulations.shelf import Shelf, open_shelf


@pytest.fixture
def shelf(small: Scenario, tmp_path: Path) -> Shelf:
    write_device_folders(small, tmp_path)
    return open_shelf(tmp_path / "assets", small)


@pytest.fixture
def home(shelf: Shelf, tmp_path: Path) -> Home:
    """Device 1, enrolled by hand."""
    own = Home(tmp_path / "home")
    own.folder.mkdir()
    description = tmp_path / "device-1" / "data.toml"
    config = {"number": 1, "device_class": "pi4", "superlink": "localhost:1", "data": str(description)}
    own.config_path.write_text(tomli_w.dumps({**config, "proxy": str(tmp_path / PROXY)}))
    return own


@pytest.fixture
def plan(small: Scenario, shelf: Shelf) -> DevicePlan:
    return device_plan(small, shelf)


@pytest.fixture
def server(home: Home) -> Iterator[grpc.Server]:
    found = serve(Carrier(home), home.socket)
    yield found
    found.stop(None).wait()


def request(small: Scenario, shelf: Shelf, round_number: int = 1) -> bytes:
    wire = small.exchange
    exchange = ServerExchange(shelf.context(small.seed, 10), wire.per_round, small.rounds)
    rows = np.random.default_rng(0).dirichlet(np.ones(10), len(shelf.proxy)).astype(np.float32)
    exchange.publish(0, np.arange(len(shelf.proxy)), rows)
    return exchange.request(1, round_number)


def shim(home: Home, plan: DevicePlan, run: str = "run-1", patience: float = 60) -> AgentHost:
    return AgentHost(str(home.socket), run, plan.model_dump_json(exclude_none=True), patience)


def test_the_shim_gets_through_the_agent_what_a_simulated_device_answers(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan, server: grpc.Server, tmp_path: Path
) -> None:
    asked = request(small, shelf)
    host = shim(home, plan)
    assert host.devices() == {1: "pi4"}
    answers = host.answer({1: asked})
    assert answers == {1: make_device(small, shelf, 1, tmp_path / "simulated").answer(asked)}
    assert answers[1].packet


def test_an_agent_that_comes_back_answers_a_finished_round_without_training_again(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(small, shelf)
    first = serve(Carrier(home), home.socket)
    answer = shim(home, plan).answer({1: asked})
    first.stop(None).wait()

    def no_training(*arguments: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr("client.device.teach", no_training)
    second = serve(Carrier(home), home.socket)
    assert shim(home, plan).answer({1: asked}) == answer
    second.stop(None).wait()


def test_only_those_who_may_enter_the_folder_reach_the_socket(home: Home, server: grpc.Server) -> None:
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(home.socket.parent.stat().st_mode) & 0o007 == 0
    assert os.umask(0o022) == 0o022  # as it was before the socket


def test_another_protocol_is_refused_by_the_agent(home: Home, server: grpc.Server) -> None:
    agent = rpc.AgentStub(grpc.insecure_channel(f"unix:{home.socket}"))
    with pytest.raises(grpc.RpcError, match="speaks protocol 2, this agent 1"):
        agent.Devices(pb.DevicesRequest(protocol=2), wait_for_ready=True)


def test_a_shim_without_an_agent_gives_up_with_a_word_on_what_to_start(home: Home, plan: DevicePlan) -> None:
    with pytest.raises(ConfigError, match="fedstill client start") as told:
        shim(home, plan, patience=0.1).devices()
    assert str(home.folder) not in str(told.value)


def test_an_agent_that_hangs_is_waited_for_no_longer_than_the_message_lives(
    home: Home, plan: DevicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(Carrier, "answer", lambda *_: goes_on.wait(60) and {})
    hanging = serve(Carrier(home), home.socket)
    try:
        with pytest.raises(ConfigError, match="gave no answer in 1 s"):
            shim(home, plan).within(1.0).answer({1: b""})
    finally:
        goes_on.set()
        hanging.stop(None).wait()


def test_the_client_app_hands_on_how_long_a_message_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    identify_server(1)
    message = Message(RecordDict(), 5, "query.devices", ttl=77)
    context = Context(1, 5, {"agent": "/x"}, RecordDict(), {"host": "client.shim:build", "run": "r", "plan": "{}"})
    waited: list[float] = []

    def devices(host: AgentHost) -> dict[int, str]:
        waited.append(host._limit)
        return {}

    monkeypatch.setattr(AgentHost, "devices", devices)
    app(message, context)
    assert waited == [77]


def test_outside_its_owners_limits_a_device_is_absent_but_gives_what_it_finished(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan, server: grpc.Server
) -> None:
    host, asked = shim(home, plan), request(small, shelf)
    home.limits.write_text(f"free_disk_mb = {10**9}\n")
    answer = host.answer({1: asked})[1]
    assert (answer.absence, answer.refusal, answer.packet) == ("its disk is full", "", b"")
    assert device_rows(home)["may train"] == "not now: its disk is full"
    assert device_rows(home)["last asked"] == "was absent: its disk is full"
    home.limits.unlink()
    done = host.answer({1: asked})
    assert done[1].packet
    assert device_rows(home)["last asked"].startswith("took part")
    home.limits.write_text('hours = ["never"]\n')
    assert host.answer({1: asked}) == done
    assert host.answer({1: request(small, shelf, 2)})[1].absence == "its limits can't be read"


def test_a_node_or_a_run_that_names_too_little_is_refused() -> None:
    with pytest.raises(ConfigError, match="'agent' in the node configuration"):
        build({"run": "run-1", "plan": "{}"}, {})
    with pytest.raises(ConfigError, match="'plan' in the run configuration"):
        build({"run": "run-1"}, {"agent": "/x"})


def test_what_is_not_about_this_device_is_refused(home: Home, plan: DevicePlan) -> None:
    answers = Carrier(home).answer("run-1", plan.model_dump_json(), {0: b"", 7: b""})
    assert {number: answer.refusal for number, answer in answers.items()} == {
        0: "device 0 is not here",
        7: "device 7 is not here",
    }


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/x", "", ".", "a/b", "A", "x" * 65, "run-1\n"])
def test_a_run_can_not_choose_where_its_state_lies(name: str, home: Home, plan: DevicePlan) -> None:
    answer = Carrier(home).answer(name, plan.model_dump_json(), {1: b""})[1]
    assert answer.refusal == "the run has no proper name"
    assert not home.state.exists()


def test_a_run_can_not_name_code_to_load(home: Home, plan: DevicePlan, tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nnet = None\n")
    own = plan.classes["pi4"].model_copy(update={"student": f"{trap}:net"})
    bad = plan.model_copy(update={"classes": {"pi4": own}})
    answer = Carrier(home).answer("run-1", bad.model_dump_json(), {1: b""})[1]
    assert "is not built in" in answer.refusal
    assert not (tmp_path / "sprung").exists()


def test_a_run_keeps_the_plan_that_it_began_with(small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan) -> None:
    assert Carrier(home).answer("run-1", plan.model_dump_json(), {1: request(small, shelf)})[1].packet
    other = plan.model_copy(update={"seed": plan.seed + 1})
    answer = Carrier(home).answer("run-1", other.model_dump_json(), {1: b""})[1]
    assert answer.refusal == "the run's plan is not the one that it began with"


def test_a_run_that_began_before_an_upgrade_of_the_server_goes_on(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan
) -> None:
    """The file is what an earlier server told, before devices had centroids or learners."""
    began = json.loads(Path(__file__).with_name("plan-of-an-earlier-version.json").read_text())
    own = {"seed": plan.seed, "proxy_digest": plan.proxy_digest, "proxy_size": plan.proxy_size}
    old = json.dumps({**began, **own})
    new = DevicePlan.read(old).model_dump_json(exclude_none=True)
    assert "centroids" in new
    assert "centroids" not in old
    folder = home.state / "run-1"
    folder.mkdir(parents=True)
    (folder / PLAN).write_text(old)
    assert Carrier(home).answer("run-1", new, {1: request(small, shelf)})[1].packet
    other = DevicePlan.read(old).model_copy(update={"seed": plan.seed + 1}).model_dump_json()
    assert "not the one" in str(Carrier(home).answer("run-1", other, {1: b""})[1].refusal)


def test_another_proxy_set_is_refused_without_telling_paths(home: Home, plan: DevicePlan, tmp_path: Path) -> None:
    path = tmp_path / PROXY
    images = np.load(path)
    images[0, 0, 0, 0] ^= 1
    np.save(path, images)
    answer = Carrier(home).answer("run-1", plan.model_dump_json(), {1: b""})[1]
    assert answer.refusal == "the device's data or proxy set can't be used; see its log"


def test_a_device_that_fails_tells_the_server_no_more_than_that(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan, server: grpc.Server
) -> None:
    host, asked = shim(home, plan), request(small, shelf)
    home.state.write_text("a file where the state's folder belongs")
    assert host.answer({1: asked})[1].refusal == "the device failed; its log says why"
    home.state.unlink()
    assert host.answer({1: asked})[1].packet


def test_a_class_without_a_student_is_refused(home: Home, plan: DevicePlan) -> None:
    bad = plan.model_copy(update={"classes": {"mcu": plan.classes["mcu"]}})
    assert "no student for class pi4" in Carrier(home).answer("run-1", bad.model_dump_json(), {1: b""})[1].refusal


def test_many_runs_do_not_fill_the_disk(small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan) -> None:
    carrier = Carrier(home)
    for number in range(KEPT_RUNS + 2):
        carrier.answer(f"run-{number}", plan.model_dump_json(), {1: b"no request"})
    kept = sorted(place.name for place in home.state.iterdir())
    assert kept == [f"run-{number}" for number in range(2, KEPT_RUNS + 2)]


def test_a_request_that_is_none_is_refused_and_the_agent_goes_on(
    small: Scenario, shelf: Shelf, home: Home, plan: DevicePlan, server: grpc.Server
) -> None:
    host = shim(home, plan)
    assert host.answer({1: b"\xff\xff"})[1].refusal
    assert host.answer({1: request(small, shelf)})[1].packet
