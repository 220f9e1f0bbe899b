"""A model in the process that is measured, seen from outside: a model that crashes or hangs takes only that one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import client
from fedstill.errors import ReleaseError
from fedstill.release.manifest import Normalization
from fedstill.soft_labels import Floats
from fedstill.tasks import Images

START = 120.0  # seconds in which a model must be loaded
PATIENCE = 60.0  # seconds that a measurement may take beyond what it was given
SLOWEST = 60.0  # seconds in which a block of predictions must be made
BLOCK = 64  # images predicted at once


class Bench:
    """A loaded model to be measured; close it, or use it as a context manager.

    Args:
        model: an ONNX file.
        how: makes inputs of images.
        classes: number of logits that it must answer.
        threads: that the runtime may use.

    Attributes:
        onnxruntime: version of the runtime.
        empty_rss: peak resident bytes before the model was loaded.

    Raises:
        ReleaseError: the model can't be loaded.
    """

    def __init__(self, model: Path, how: Normalization, classes: int, threads: int) -> None:
        self._name, self._classes = model.name, classes
        # The child finds the code that runs here, wherever it was imported from.
        paths = [str(Path(client.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
        self._folder = tempfile.TemporaryDirectory(prefix="fedstill-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "client.evaluate.bench"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **own},
        )
        self._hung = False
        try:
            self.onnxruntime = str(self._ask(START, do="ready")["onnxruntime"])
            self.empty_rss = self.peak_rss
            self._ask(START, do="load", model=str(model), normalization=how.model_dump(), threads=threads)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not sent yet has no reader
                pipe.close()
        self._process.wait()
        self._folder.cleanup()

    def single(self, images: Images, warm_up: int, repeats: int, seconds: float) -> npt.NDArray[np.float64]:
        """Return the milliseconds of predictions of one image at a time, of `repeats` or as many as the time allows.

        Args:
            images: uint8 `[samples, channels, height, width]`, asked in turn.
            warm_up: predictions before them that don't count.
            repeats: predictions that count.
            seconds: for all of it.

        Raises:
            ReleaseError: the model crashed or hung.
        """
        request = {"images": self._write(images), "warm_up": warm_up, "repeats": repeats, "seconds": seconds}
        return np.array(self._ask(seconds + PATIENCE, do="single", **request)["milliseconds"], dtype=np.float64)

    def batches(self, images: Images, batch: int, seconds: float) -> tuple[int, float]:
        """Predict in batches for so many seconds; return the number of samples and the seconds that they took.

        Raises:
            ReleaseError: the model crashed or hung.
        """
        found = self._ask(seconds + PATIENCE, do="batch", images=self._write(images), batch=batch, seconds=seconds)
        return int(found["samples"]), float(found["seconds"])

    def predict(self, images: Images) -> Floats:
        """Return the model's logits about images `[samples, classes]`.

        Raises:
            ReleaseError: the model crashed or hung, or answers something other than finite logits.
        """
        out = Path(self._folder.name) / "logits.npy"
        blocks = -(-len(images) // BLOCK)
        self._ask(SLOWEST * blocks, do="predict", images=self._write(images), out=str(out), batch=BLOCK)
        found: Floats = np.load(out, allow_pickle=False)
        if found.shape != (len(images), self._classes) or not np.isfinite(found).all():
            raise ReleaseError(f"{self._name}: its answer is not a row of {self._classes} finite logits per image")
        return found

    @property
    def peak_rss(self) -> int:
        """Peak resident bytes of the process so far.

        Raises:
            ReleaseError: the model crashed.
        """
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError as error:
            raise ReleaseError(f"{self._name}: {self._end(0)}") from error
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)

    def _write(self, images: Images) -> str:
        path = Path(self._folder.name) / "images.npy"
        np.save(path, images)
        return str(path)

    def _ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        killer = threading.Timer(timeout, self._give_up)
        killer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            killer.cancel()
        if not line:
            raise ReleaseError(f"{self._name}: {self._end(timeout)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ReleaseError(f"{self._name}: {answer['error']}")
        return answer

    def _give_up(self) -> None:
        self._hung = True
        self._process.kill()

    def _end(self, timeout: float) -> str:
        code = self._process.wait()
        if self._hung:
            return f"it hung: no answer within {timeout:g} s"
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        return f"it crashed: the runtime ended with {name}"
