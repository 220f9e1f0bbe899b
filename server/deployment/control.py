"""Flower's control API, through its own command `flwr`: devices in and out, runs begun and listed."""

import json
import os
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from fedstill.errors import ConfigError, DataError
from fedstill.files import write_atomic
from fedstill.processes import holder, script
from server.deployment.home import ServerHome

CONNECTION = "fedstill"
TIMEOUT = 120.0  # seconds; `flwr` waits for a SuperLink that is not there
CONNECT_SECONDS = 5.0
NODE_OF_KEY = "SELECT node_id FROM node WHERE public_key = ? AND status != 'unregistered'"


@dataclass(frozen=True)
class Run:
    """A run as Flower knows it.

    Attributes:
        run_id: its number.
        status: for example `running` or `finished:completed`.
    """

    run_id: int
    status: str


@dataclass(frozen=True)
class Control:
    """The control API of a server on this machine.

    Attributes:
        home: the server's folder.
    """

    home: ServerHome

    def listens(self) -> bool:
        """Return whether the SuperLink takes connections: it needs some seconds from its start."""
        host, _, port = self.home.config().control.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
                return True
        except OSError:
            return False

    def is_up(self) -> bool:
        """Return whether there is a server: one that `fedstill server start` keeps, or a SuperLink that answers."""
        # In containers nobody holds the lock: each process has one of its own.
        return holder(self.home / "run" / "server.lock") is not None or self.listens()

    def register(self, public_key: bytes, name: str) -> int:
        """Let the holder of a key connect as a SuperNode; return its node id.

        Args:
            public_key: elliptic curve key in OpenSSH's form.
            name: what to call it.

        Raises:
            ConfigError: the SuperLink refuses or can't be reached.
        """
        with tempfile.NamedTemporaryFile(suffix=".pub") as file:
            file.write(public_key)
            file.flush()
            reply = self._ask("supernode", "register", file.name, CONNECTION, "--name", name)
        return int(reply["node-id"])

    def unregister(self, node_id: int) -> None:
        """Turn a SuperNode away from now on.

        Raises:
            ConfigError: the SuperLink refuses or can't be reached.
        """
        self._ask("supernode", "unregister", str(node_id), CONNECTION)

    def node_of(self, public_key: str) -> int | None:
        """Return the node id under which a key is registered, None where it is not.

        The control API tells no keys, so that this is read in Flower's database.

        Args:
            public_key: elliptic curve key in OpenSSH's form.

        Raises:
            DataError: the database can't be read.
        """
        path = self.home / "superlink.db"
        if not path.exists():
            return None
        key = load_ssh_public_key(public_key.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        try:
            with closing(sqlite3.connect(path, timeout=TIMEOUT)) as database:
                found = database.execute(NODE_OF_KEY, (key,)).fetchone()
        except sqlite3.Error as error:
            raise DataError(f"{path}: {error}") from error
        return None if found is None else found[0] % 2**64  # SQLite has no unsigned numbers

    def nodes(self) -> dict[int, str]:
        """Return the status of all SuperNodes by node id."""
        listed = self._ask("supernode", "list", CONNECTION)["nodes"]
        return {int(node["node-id"]): str(node["status"]) for node in listed}

    def start(self, bundle: Path, run_config: Mapping[str, str]) -> int:
        """Begin a run of an app and return its number.

        Raises:
            ConfigError: the SuperLink refuses or can't be reached.
        """
        with tempfile.NamedTemporaryFile(suffix=".toml") as file:
            file.write(tomli_w.dumps(dict(run_config)).encode())
            file.flush()
            return int(self._ask("run", str(bundle), CONNECTION, "--run-config", file.name)["run-id"])

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        listed = self._ask("ls", CONNECTION)["runs"]
        return [Run(int(run["run-id"]), str(run["status"])) for run in listed]

    def stop(self, run_id: int) -> None:
        """End a run."""
        self._ask("stop", str(run_id), CONNECTION)

    def log(self, run_id: int) -> str:
        """Return what a run's ServerApp said; empty: nobody can tell."""
        try:
            return self._flwr("log", str(run_id), CONNECTION, "--show").stdout
        except ConfigError:
            return ""

    def _ask(self, *arguments: str) -> Any:
        done = self._flwr(*arguments, "--format", "json")
        reply = _json_in(done.stdout)
        if done.returncode or not isinstance(reply, dict) or not reply.get("success"):
            said = str((reply or {}).get("error-message") or done.stderr or done.stdout).strip()
            raise ConfigError(
                f"the SuperLink did not do it ({' '.join(arguments[:2])}): {' '.join(said.split())[-500:]}"
            )
        return reply

    def _flwr(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        folder = self.home / "flwr"
        connection = {"address": self.home.config().control, "root-certificates": str(self.home / "ca.crt")}
        wanted = tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: connection}}).encode()
        path = folder / "config.toml"
        try:
            if not path.exists() or path.read_bytes() != wanted:  # a full disk is no reason not to ask
                write_atomic(path, wanted)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; the SuperLink can't be asked without it") from error
        command = [script("flwr"), *arguments]
        environment = {**os.environ, "FLWR_HOME": str(folder), "NO_COLOR": "1"}
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                f"no answer from the SuperLink in {TIMEOUT:g} s; is `fedstill server start` up?"
            ) from error


def _json_in(text: str) -> Any:
    """Return the JSON object in what a command printed; None: there is none."""
    start = text.find("{")
    try:
        return json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        return None
