"""An app that a server might send: it tries to get at everything that it should not, and tells how far it got.

Flower runs it as it is, so it imports nothing of ours.
"""

import ctypes
import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

PTRACE_ATTACH = 16
TARGETS = "targets"

client = ClientApp()
server = ServerApp()


def _list(path: str) -> None:
    os.listdir(path)


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _plant(folder: str) -> None:
    Path(folder, "planted").touch()


def _remove(path: str) -> None:
    os.unlink(path)


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(path)


def _end(process: str) -> None:
    os.kill(int(process), signal.SIGKILL)


def _trace(process: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, int(process), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _link(process: str) -> None:
    os.readlink(f"/proc/{process}/cwd")


def _become(user: str) -> None:
    os.setuid(int(user))


ATTEMPTS: dict[str, Callable[[str], None]] = {
    "list": _list,
    "read": _read,
    "write": _write,
    "plant": _plant,
    "remove": _remove,
    "connect": _connect,
    "kill": _end,
    "trace": _trace,
    "link": _link,
    "become": _become,
}


def attempt(kind: str, target: str) -> str:
    """Return `done`, or the name of the error that came instead."""
    try:
        ATTEMPTS[kind](target)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    return "done"


def ask_agent(path: str, method: str) -> str:
    """Call a method at the agent's socket with an empty request, and return how that ended."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            channel.unary_unary(method, lambda content: content, lambda content: content)(b"", timeout=60)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "done"


@client.query("attack")
def attack(message: Message, context: Context) -> Message:
    targets = json.loads(str(context.run_config[TARGETS]))
    found: dict[str, Any] = {f"{kind} {target}": attempt(kind, target) for kind, target in targets["attempts"]}
    found |= {f"call {method}": ask_agent(targets["socket"], method) for method in targets["methods"]}
    found["uid"] = os.getuid()
    found["groups"] = os.getgroups()
    found["status"] = Path("/proc/self/status").read_text()
    found["environment"] = sorted(os.environ)
    return Message(RecordDict({"found": ConfigRecord({"json": json.dumps(found)})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([Message(RecordDict(), node, "query.attack", ttl=600)], timeout=600)
    said = str(reply.error.reason) if reply.has_error() else str(reply.content.config_records["found"]["json"])
    place = Path(str(context.run_config["out"]))
    place.with_suffix(".tmp").write_text(said)
    place.with_suffix(".tmp").rename(place)
