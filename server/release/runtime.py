"""ONNX Runtime: predictions and latency of a student."""

import time

import numpy as np

from fedstill.learning import normalize
from fedstill.release.model import session
from fedstill.soft_labels import Floats
from fedstill.tasks import Images, Task


def logits(content: bytes, task: Task, images: Images, batch: int = 256) -> Floats:
    """Return a model's logits about uint8 images `[samples, classes]`."""
    model = session(content)
    name = model.get_inputs()[0].name
    parts = [
        model.run(None, {name: normalize(images[start : start + batch], task).numpy()})[0]
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts).astype(np.float32)


def latency_ms(content: bytes, task: Task, image: Images, repeats: int = 200) -> float:
    """Return the median milliseconds of one sample `[1, channels, height, width]` on one thread, after a warm-up."""
    model = session(content)
    feed = {model.get_inputs()[0].name: normalize(image, task).numpy()}
    times = []
    for _ in range(repeats + 20):
        start = time.perf_counter()
        model.run(None, feed)
        times.append(time.perf_counter() - start)
    return float(np.median(times[20:]) * 1000)
