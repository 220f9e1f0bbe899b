"""The process that is measured, `python -m client.evaluate.bench`: it holds a model, and what any program needs for it.

Reads one JSON object per line from standard input and answers each with one on what was standard output:

    ready                                       the runtime's version
    load     model, normalization, threads      nothing
    single   images, warm_up, repeats, seconds  milliseconds of predictions of one image at a time
    batch    images, batch, seconds             samples predicted and the seconds that they took
    predict  images, out, batch                 nothing; the logits `[samples, classes]` lie in `out`

Images and logits are .npy files. An answer with `error` says what went wrong. Ends with its input, even in the midst of
a computation that never ends.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from fedstill.release.model import normalized, session
from fedstill.soft_labels import Floats
from fedstill.tasks import Images

WARM_UP = 2  # batches


class _Scaling(NamedTuple):
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Bench:
    def ready(self) -> dict[str, Any]:
        return {"onnxruntime": ort.__version__}

    def load(self, model: str, normalization: dict[str, Any], threads: int) -> dict[str, Any]:
        self._model = session(Path(model).read_bytes(), threads)
        self._how, self._name = _Scaling(**normalization), self._model.get_inputs()[0].name
        return {}

    def single(self, images: str, warm_up: int, repeats: int, seconds: float) -> dict[str, Any]:
        rows = np.load(images)
        until, times = time.monotonic() + seconds, list[float]()
        for place in range(warm_up + repeats):
            one = rows[place % len(rows)][None]
            begin = time.perf_counter()
            self._logits(one)
            times.append((time.perf_counter() - begin) * 1000)
            if time.monotonic() > until:
                break
        return {"milliseconds": times[warm_up:] or times[-1:]}

    def batch(self, images: str, batch: int, seconds: float) -> dict[str, Any]:
        found = np.load(images)
        rows = found[np.arange(batch) % len(found)]
        for _ in range(WARM_UP):
            self._logits(rows)
        count, begin = 0, time.perf_counter()
        while not count or time.perf_counter() < begin + seconds:
            self._logits(rows)
            count += batch
        return {"samples": count, "seconds": time.perf_counter() - begin}

    def predict(self, images: str, out: str, batch: int) -> dict[str, Any]:
        rows = np.load(images, mmap_mode="r")
        parts = [self._logits(np.array(rows[place : place + batch])) for place in range(0, len(rows), batch)]
        np.save(out, np.concatenate(parts).astype(np.float32))
        return {}

    def _logits(self, images: Images) -> Floats:
        found: Floats = self._model.run(None, {self._name: normalized(images, self._how)})[0]
        return found


def _read(requests: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # whoever asked is gone


def main() -> None:
    """Answer requests one after the other."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what the runtime prints is no answer
        bench = _Bench()
        calls: dict[str, Callable[..., dict[str, Any]]] = {
            "ready": bench.ready,
            "load": bench.load,
            "single": bench.single,
            "batch": bench.batch,
            "predict": bench.predict,
        }
        requests: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_read, args=(requests,), daemon=True).start()
        while True:
            request = json.loads(requests.get())
            try:
                answer = calls[request.pop("do")](**request)
            except Exception as error:  # the runtime's own types; whatever it is, the parent wants to know
                answer = {"error": f"{type(error).__name__}: {error}"[:300]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
