"""The process that runs a student, `python -m client.predict.worker FD`: when the runtime dies, this dies alone.

Speaks over the socket with descriptor FD. First a line of JSON each way (`model`, `normalization`, `shape`, `classes`;
then the runtime's version, or `error`). Then, image by image: uint8 pixels in C order come in; a float64 with the
milliseconds of the computation and the float32 logits go out. Ends with its parent, even in the midst of a computation
that never ends.
"""

import contextlib
import json
import math
import os
import socket
import struct
import sys
import threading
import time
from io import BufferedRWPair
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from fedstill.release.model import normalized, session


class _Scaling(NamedTuple):
    """A manifest's normalization, without pydantic: a seventh of this process's memory."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _end_with_parent() -> None:
    os.read(0, 1)  # the parent never writes there: it returns when the parent is gone
    os._exit(1)


def main() -> None:
    """Load a model and answer images until the connection ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.socket(fileno=int(sys.argv[1])) as ours, ours.makefile("rwb") as connection:
        request = json.loads(connection.readline())
        try:
            model = session(Path(request["model"]).read_bytes())
        except Exception as error:  # the runtime's own types; whatever it is, the parent wants to know
            _tell(connection, {"error": f"{type(error).__name__}: {error}"[:300]})
            return
        _tell(connection, {"onnxruntime": ort.__version__})
        with contextlib.suppress(ConnectionError):  # the parent wants no more
            _answer(connection, model, request)


def _tell(connection: BufferedRWPair, message: dict[str, str]) -> None:
    connection.write(json.dumps(message).encode() + b"\n")
    connection.flush()


def _answer(connection: BufferedRWPair, model: ort.InferenceSession, request: dict[str, Any]) -> None:
    how = _Scaling(**request["normalization"])
    shape, classes = tuple(request["shape"]), request["classes"]
    name, size = model.get_inputs()[0].name, math.prod(shape)
    while len(pixels := connection.read(size)) == size:
        begin = time.perf_counter()
        image = np.frombuffer(pixels, dtype=np.uint8).reshape(1, *shape)
        logits = model.run(None, {name: normalized(image, how)})[0].astype("<f4").reshape(classes)
        milliseconds = (time.perf_counter() - begin) * 1000
        connection.write(struct.pack("<d", milliseconds) + logits.tobytes())
        connection.flush()


if __name__ == "__main__":
    main()
