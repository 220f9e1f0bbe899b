"""The agent's socket: a round's calls over gRPC, for processes that may enter the socket's folder."""

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from client.agent import MAX_MESSAGE, PROTOCOL
from client.agent.carrier import Carrier
from fedstill.errors import ConfigError
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc as rpc

log = logging.getLogger("fedstill")
Context = grpc.ServicerContext


class Service(rpc.AgentServicer):
    """Answers calls, one at a time.

    Args:
        carrier: what computes.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._lock = threading.Lock()

    def Devices(self, request: pb.DevicesRequest, context: Context) -> pb.DevicesReply:  # noqa: N802
        """Tell which device is here."""
        _check(request.protocol, context)
        return pb.DevicesReply(protocol=PROTOCOL, classes=dict(self._carrier.devices()))

    def Answer(self, request: pb.AnswerRequest, context: Context) -> pb.AnswerReply:  # noqa: N802
        """Do a round's work."""
        _check(request.protocol, context)
        with self._lock:
            answers = self._carrier.answer(request.run, request.plan, dict(request.requests))
        reply = pb.AnswerReply(protocol=PROTOCOL)
        for number, answer in answers.items():
            reply.answers[number].CopyFrom(
                pb.DeviceAnswer(
                    packet=answer.packet,
                    metrics=dict(answer.metrics),
                    refusal=answer.refusal,
                    held_version=answer.held_version,
                    absence=answer.absence,
                )
            )
        return reply


def _check(protocol: int, context: Context) -> None:
    if protocol != PROTOCOL:
        reason = f"the ClientApp speaks protocol {protocol}, this agent {PROTOCOL}; update the older of the two"
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)


def serve(carrier: Carrier, socket: Path) -> grpc.Server:
    """Listen on a Unix socket with mode 0660; who gets that far, its folder decides.

    Raises:
        ConfigError: the socket can't be made.
    """
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
    server = grpc.server(ThreadPoolExecutor(4), options=limits)
    rpc.add_AgentServicer_to_server(Service(carrier), server)
    before = os.umask(0o117)  # so that at no moment the socket is open to others
    try:
        server.add_insecure_port(f"unix:{socket}")
        server.start()
    except RuntimeError as error:
        raise ConfigError(f"{socket}: can't listen here: {error}") from error
    finally:
        os.umask(before)
    return server
