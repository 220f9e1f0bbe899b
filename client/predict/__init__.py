"""Predictions by the release that runs on this device: `client.predict.connect(socket).predict(images)`.

The student runs in the processes of `fedstill client predict`; this side needs the standard library alone.
"""

import http.client
import json
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fedstill.errors import FedstillError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Prediction", "PredictionError", "Predictor", "connect"]

BODY, IMAGES = 1_000_000, 500  # bytes and number of images in one request; one that is larger goes alone
TIMEOUT = 300.0  # seconds: a release that hangs is found out, another one loaded, and the request answered


def per_request(size: int) -> int:
    """Return how many images of so many bytes one request may hold."""
    return min(IMAGES, max(1, BODY // max(1, size)))


class PredictionError(FedstillError):
    """There is no prediction, with the reason."""


@dataclass(frozen=True)
class Prediction:
    """What the running release says about one image.

    Attributes:
        label: name of the most probable class.
        index: of that class.
        probabilities: on the simplex `[classes]`.
        version: of the release.
        milliseconds: of the computation.
    """

    label: str
    index: int
    probabilities: tuple[float, ...]
    version: int
    milliseconds: float


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Predictor:
    """The prediction server of this device. Any thread may ask; one is served at a time.

    Args:
        path: the server's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection = _Connection(path)

    def predict(self, images: "npt.NDArray[np.uint8]", labels: Sequence[str] | None = None) -> list[Prediction]:
        """Return what the running release says about images.

        Args:
            images: uint8 `[images, channels, height, width]`, or one of them.
            labels: what they really are, where somebody knows: for the accuracy that the device reports.

        Raises:
            PredictionError: no server, no release that answers, or other images than the release takes.
        """
        if str(images.dtype) != "uint8":
            raise PredictionError(f"images of {images.dtype}; uint8 pixels are wanted")
        rows = images if images.ndim == 4 else images[None]
        step = per_request(rows[:1].nbytes)
        found: list[dict[str, Any]] = []
        for place in range(0, len(rows), step):
            part = labels[place : place + step] if labels is not None else None
            query = f"?{urlencode({'label': part}, doseq=True)}" if part is not None else ""
            found += self._ask("POST", f"/predict{query}", rows[place : place + step].tobytes())["predictions"]
        return [
            Prediction(row["label"], row["class"], tuple(row["probabilities"]), row["version"], row["milliseconds"])
            for row in found
        ]

    def status(self) -> dict[str, Any]:
        """Return what runs and how.

        Raises:
            PredictionError: no server.
        """
        return self._ask("GET", "/status", b"")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        with self._lock:
            try:
                answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the server may have been restarted, or been idle for long
                try:
                    answer = self._once(method, path, body)
                except (OSError, http.client.HTTPException) as error:
                    self._connection.close()
                    raise PredictionError(
                        f"{self._path}: nobody answers ({error}); is `fedstill client predict` at work?"
                    ) from error
        try:
            content: dict[str, Any] = json.loads(answer)
        except ValueError as error:  # HTTP's own refusals are pages: a query that is too long, for one
            raise PredictionError(f"{self._path}: the request is refused: {answer[:200]!r}") from error
        if "error" in content:
            raise PredictionError(str(content["error"]))
        return content

    def _once(self, method: str, path: str, body: bytes) -> bytes:
        self._connection.request(method, path, body)
        return self._connection.getresponse().read()


def connect(path: Path | str | None = None) -> Predictor:
    """Return the prediction server behind a Unix socket.

    Args:
        path: of the socket; None: that of the device whose folder is `FEDSTILL_HOME` or the default one.
    """
    if path is None:
        from client.updates.home import default_home  # its dependencies are for those who need the default

        path = default_home() / "predict.sock"
    return Predictor(Path(path))
