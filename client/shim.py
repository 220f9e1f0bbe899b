"""The host of a deployed device: hands a message's requests to the agent on this machine. Imports no torch.

Every message gets a process of its own, and what runs in it is code that the server sent. So this module holds
nothing: data, student and state are the agent's, behind a socket that offers a round's calls.
"""

import time
from collections.abc import Mapping
from copy import copy
from typing import Any, Protocol, TypeVar

import grpc

from client.agent import MAX_MESSAGE, PROTOCOL
from fedstill.errors import ConfigError
from fedstill.rounds import DeviceAnswer
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc as rpc

PATIENCE = 300.0
"""Seconds to wait for an agent that is being started again."""
LONGEST = 24 * 3600.0
"""Seconds to wait for an answer, whatever the server says."""
PAUSE = 0.5
Q = TypeVar("Q", contravariant=True)
R = TypeVar("R", covariant=True)


class _Call(Protocol[Q, R]):
    def __call__(self, request: Q, /, *, timeout: float) -> R: ...


class AgentHost:
    """The device behind an agent.

    Args:
        socket: path of the agent's socket.
        run: name of the run.
        plan: JSON of its `fedstill.plan.DevicePlan`.
        patience: seconds to wait for an agent that is not there.
        limit: seconds to wait for an answer altogether.
    """

    def __init__(self, socket: str, run: str, plan: str, patience: float = PATIENCE, limit: float = LONGEST) -> None:
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ]
        self._agent = rpc.AgentStub(grpc.insecure_channel(f"unix:{socket}", options=options))
        self._run = run
        self._plan = plan
        self._patience = patience
        self._limit = limit

    def within(self, seconds: float) -> "AgentHost":
        """Return this host, waiting for an answer no longer than that.

        A SuperNode has one message done at a time: behind an agent that hangs it would wait for ever.
        """
        limited = copy(self)
        limited._limit = min(seconds, LONGEST)
        return limited

    def devices(self) -> Mapping[int, str]:
        """Return the classes of the devices behind the agent, by device."""
        reply = self._ask(self._agent.Devices, pb.DevicesRequest(protocol=PROTOCOL))
        return dict(sorted(reply.classes.items()))

    def answer(self, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        """Return the answers of devices to their serialized requests, by device.

        An agent that ends meanwhile is asked again as soon as it is back: it answers a round that it finished from
        what it did, and starts on any other from the state before.
        """
        request = pb.AnswerRequest(protocol=PROTOCOL, run=self._run, plan=self._plan, requests=dict(requests))
        reply = self._ask(self._agent.Answer, request)
        return {
            number: DeviceAnswer(
                answer.packet,
                dict(sorted(answer.metrics.items())),
                answer.refusal,
                answer.held_version,
                answer.absence,
            )
            for number, answer in sorted(reply.answers.items())
        }

    def _ask(self, call: _Call[Q, R], request: Q) -> R:
        asked = time.monotonic()
        end = asked + self._limit
        deadline = min(end, asked + self._patience)
        while True:
            try:
                return call(request, timeout=end - asked)
            except grpc.RpcError as error:
                status, now = error.code(), time.monotonic()
                if status is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise ConfigError(f"the device's agent gave no answer in {self._limit:.0f} s") from error
                if status is not grpc.StatusCode.UNAVAILABLE:
                    raise ConfigError(f"the agent refused: {error.details()}") from error
                if now - asked > self._patience / 2:  # it was there until now
                    deadline = min(end, now + self._patience)
                if now > deadline:
                    # The server is told this: where the device's folders lie is nobody else's business.
                    raise ConfigError("the device's agent is not there; start `fedstill client start`") from error
            time.sleep(PAUSE)
            asked = time.monotonic()


def build(run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> AgentHost:
    """Build the host of a node: the socket is named by the node, run and plan by the run.

    Raises:
        ConfigError: one of them is not named.
    """
    named = {"agent": node_config.get("agent"), "run": run_config.get("run"), "plan": run_config.get("plan")}
    for key, value in named.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"no {key!r} in the {'node' if key == 'agent' else 'run'} configuration")
    return AgentHost(str(named["agent"]), str(named["run"]), str(named["plan"]))
