"""A released student in a process of its own: what it answers, and every way in which it can fail to."""

import hashlib
import importlib.metadata
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import client
from fedstill.errors import ReleaseError

# The name is fedstill/release/manifest.py's, which needs NumPy; the process that supervises does without it.
MANIFEST = "manifest.json"
START = 60.0  # seconds in which a model must be loaded
ANSWER = 10.0  # seconds in which it must answer one image
ENDING = 10.0  # seconds in which a process that gives no answer any more has ended
CHUNK = 1 << 20


class StudentError(ReleaseError):
    """A student crashed, hung, or answered what is no answer."""


@dataclass(frozen=True)
class Answer:
    """What a student says about one image.

    Attributes:
        logits: finite `[classes]`.
        milliseconds: of the computation.
    """

    logits: tuple[float, ...]
    milliseconds: float


def runtime_version() -> str:
    """Return the version of ONNX Runtime without loading it."""
    return importlib.metadata.version("onnxruntime")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


class Student:
    """A loaded student. Any thread may ask; one question is answered at a time.

    Args:
        folder: the release, verified when it was installed.
        file: its model file to run.
        hashes: SHA-256 of files that must not have changed since; empty: just verified.
        answer: seconds in which it must answer one image.

    Raises:
        StudentError: a file changed, or the model can't be loaded.
        OSError: no process can be started now.
    """

    def __init__(self, folder: Path, file: str, hashes: Mapping[str, str], answer: float = ANSWER) -> None:
        for name, expected in hashes.items():
            try:
                same = sha256(folder / name) == expected
            except OSError as error:
                raise StudentError(f"{folder / name}: {error.strerror}") from error
            if not same:
                raise StudentError(f"{folder / name}: changed on the disk since it was installed")
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        self.labels: tuple[str, ...] = tuple(manifest["label_names"])
        self.shape: tuple[int, int, int] = tuple(manifest["self_test"]["shape"][1:])
        self.size = math.prod(self.shape)
        self._reason: str | None = None
        self._answer, self._lock = answer, threading.RLock()
        self._process, self._socket = _start()
        try:
            self._handshake(folder / file, manifest)
        except StudentError:
            self.close()
            raise

    def _handshake(self, model: Path, manifest: dict[str, Any]) -> None:
        request = {
            "model": str(model),
            "normalization": manifest["input"]["normalization"],
            "shape": self.shape,
            "classes": len(self.labels),
        }
        until = time.monotonic() + START
        self._send(json.dumps(request).encode() + b"\n", until)
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive(1, until)
        told = json.loads(line)
        if "error" in told:
            raise StudentError(f"{model.name}: {told['error']}")
        self.onnxruntime = str(told["onnxruntime"])

    def answer(self, pixels: bytes) -> Answer:
        """Return what the student says about one image.

        Args:
            pixels: uint8 `[channels, height, width]` in C order.

        Raises:
            StudentError: it crashed, hung or answered something else; it is of no use any more.
        """
        assert len(pixels) == self.size
        with self._lock:
            until = time.monotonic() + self._answer
            self._send(pixels, until)
            content = self._receive(8 + 4 * len(self.labels), until)
        milliseconds, *logits = struct.unpack(f"<d{len(self.labels)}f", content)
        if not all(math.isfinite(logit) for logit in logits):
            self._reason = "it answered something other than finite logits"
            raise self._failed(None)
        return Answer(tuple(logits), milliseconds)

    def peak_rss(self) -> int | None:
        """Return the peak resident bytes of the process; None: it has ended."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def close(self) -> None:
        """End the process; whoever waits for an answer gets a StudentError."""
        self._process.kill()
        self._process.wait()
        with self._lock:  # nobody reads from it any more
            self._socket.close()
            if self._process.stdin:
                self._process.stdin.close()

    def retire(self) -> None:
        """End the process once the question that it answers now is answered."""
        with self._lock:
            self.close()

    def _send(self, content: bytes, until: float) -> None:
        try:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            self._socket.sendall(content)
        except OSError as error:
            raise self._failed(error) from error

    def _receive(self, size: int, until: float) -> bytes:
        content = bytearray()
        while len(content) < size:
            try:
                self._socket.settimeout(max(until - time.monotonic(), 0.001))
                part = self._socket.recv(size - len(content))
            except OSError as error:
                raise self._failed(error) from error
            if not part:
                raise self._failed(None)
            content += part
        return bytes(content)

    def _failed(self, error: OSError | None) -> StudentError:
        if self._reason is None:  # whoever asks after it failed hears why it did
            self._reason = "it hung: no answer in time" if isinstance(error, TimeoutError) else self._crash()
        self.close()
        return StudentError(self._reason)

    def _crash(self) -> str:
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            return "it crashed: the runtime gives no answer and does not end"
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        return f"it crashed: the runtime ended with {name}"


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    # The child finds the code that runs here, wherever it was imported from.
    paths = [str(Path(client.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "client.predict.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        except OSError:
            ours.close()
            raise
    return process, ours
