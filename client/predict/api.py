"""The local API: HTTP on a Unix socket that its owner alone can open, and where asked for on loopback.

    POST /predict[?label=a&label=b]   body: uint8 pixels of images `[images, channels, height, width]` in C order
    GET /status                       what runs, which labels and shape it has, how fast it is

`label` names what the images really are, where somebody knows: counted for the accuracy on local data, not kept.
"""

import json
import math
import os
import socket
import socketserver
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from client.predict import BODY, per_request
from client.predict.supervisor import Reply, Supervisor
from fedstill.errors import ConfigError, FedstillError

LOOPBACK = "127.0.0.1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds in which a request must arrive
    server: "_Server"

    def do_GET(self) -> None:
        if self._allowed():
            found = self.server.supervisor.status() if self.path == "/status" else None
            self._reply(200 if found else 404, found or {"error": "no such path; there is /predict and /status"})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        path = urlsplit(self.path)
        if path.path != "/predict":
            self.close_connection = True  # the body stays where it is
            self._reply(404, {"error": "no such path; there is /predict and /status"})
            return
        try:
            self._reply(200, self._predict(parse_qs(path.query)))
        except ValueError as error:
            self._reply(400, {"error": str(error)})
        except (FedstillError, OSError) as error:
            self._reply(503, {"error": str(error)})

    def _predict(self, query: dict[str, list[str]]) -> dict[str, Any]:
        supervisor = self.server.supervisor
        # Unless the whole body is read: what is left of it would be taken for the next request.
        kept, self.close_connection = self.close_connection, True
        length = int(self.headers.get("Content-Length", 0))
        try:
            size = math.prod(supervisor.shape)
            most = per_request(size)
            if not 0 < length <= most * size or length % size:
                reason = f"{length} bytes; 1 to {most} images of {size} bytes are wanted: {supervisor.shape}"
                raise ValueError(reason)
        except (FedstillError, ValueError):
            self.rfile.read(min(max(length, 0), BODY))  # who is still sending would not hear the answer
            raise
        body = self.rfile.read(length)
        self.close_connection = kept
        images = [body[place : place + size] for place in range(0, length, size)]
        labels: list[str | None] = [*query.get("label", [])] or [None] * len(images)
        if len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images")
        replies = [supervisor.ask(image, label) for image, label in zip(images, labels, strict=True)]
        return {"predictions": [_prediction(reply) for reply in replies]}

    def _allowed(self) -> bool:
        """Refuse what a browser was led to send here by another site: it names that site as host or origin."""
        host = urlsplit("//" + self.headers.get("Host", "")).hostname
        good = host in (LOOPBACK, "localhost") and "Origin" not in self.headers
        if not good:
            self.close_connection = True
            self._reply(403, {"error": "for programs on this machine only"})
        return good

    def _reply(self, code: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: a line per prediction would wear out a flash card."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a Unix socket turns away whoever finds its queue full, at once

    def __init__(self, address: Any, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a client hangs up."""


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind without the name that HTTP wants of the host."""
        os.fchmod(self.socket.fileno(), 0o600)  # before it has a name that others could open
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


def on_socket(path: Path, supervisor: Supervisor) -> ThreadingHTTPServer:
    """Listen on a Unix socket that only its owner may open; a left-over one of a killed server is replaced.

    Raises:
        ConfigError: there can't be one.
    """
    if path.is_socket():
        path.unlink()
    try:
        return _UnixServer(str(path), supervisor)
    except OSError as error:
        raise ConfigError(f"{path}: no socket can be made here: {error}; name another one with --socket") from error


def on_loopback(port: int, supervisor: Supervisor) -> ThreadingHTTPServer:
    """Listen on a port of this machine, reachable from this machine.

    Raises:
        ConfigError: it is taken.
    """
    try:
        return _Server((LOOPBACK, port), supervisor)
    except OSError as error:
        raise ConfigError(f"{LOOPBACK}:{port}: {error.strerror}; name another port with --http") from error


def _prediction(reply: Reply) -> dict[str, Any]:
    logits = reply.answer.logits
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    best = logits.index(top)
    return {
        "label": reply.labels[best],
        "class": best,
        "probabilities": [power / sum(powers) for power in powers],
        "version": reply.version,
        "milliseconds": reply.answer.milliseconds,
    }
