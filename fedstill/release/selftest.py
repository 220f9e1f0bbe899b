"""The self-test of a released model: a fresh process answers the manifest's images, and its answers are compared.

An all-integer model gives the same bits on any processor with the same ONNX Runtime (measured on x86 and on emulated
Cortex-A53, A72 and A76). Otherwise logits may differ by as much as the manifest allows a model of this numeric format,
as a share of the largest one, and no class may change.
"""

import base64
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fedstill
from fedstill.errors import ReleaseError
from fedstill.release.manifest import Manifest, Normalization
from fedstill.soft_labels import Floats
from fedstill.tasks import Images


@dataclass(frozen=True)
class Answer:
    """What a fresh process answered.

    Attributes:
        logits: `[images, classes]`.
        onnxruntime: version of its runtime.
        peak_rss_bytes: its peak resident memory, interpreter and runtime included.
    """

    logits: Floats
    onnxruntime: str
    peak_rss_bytes: int


def ask(model: Path, images: Images, how: Normalization, timeout: float) -> Answer:
    """Return what a model answers in a fresh process.

    Args:
        model: an ONNX file.
        images: uint8 `[samples, channels, height, width]`.
        how: makes inputs of them.
        timeout: seconds after which the model counts as hung.

    Raises:
        ReleaseError: the process crashed or hung, or its answer is no logits of these images.
    """
    request = {
        "model": str(model),
        "images": base64.b64encode(np.ascontiguousarray(images).tobytes()).decode(),
        "shape": images.shape,
        "normalization": how.model_dump(),
        "seconds": math.ceil(timeout) + 10,
    }
    # The child finds the code that runs here, wherever it was imported from.
    paths = [str(Path(fedstill.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fedstill.release.probe"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"{model.name}: no answer within {timeout:g} s") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ReleaseError(f"{model.name}: the runtime ended with code {done.returncode}: {''.join(last)}")
    try:
        found = json.loads(done.stdout)
        logits = np.array(found["logits"], dtype=np.float32)
    except (ValueError, TypeError, KeyError) as error:  # something else in this process wrote there as well
        raise ReleaseError(f"{model.name}: its answer can't be read: {done.stdout[:100]!r}") from error
    if logits.ndim != 2 or len(logits) != len(images) or not np.isfinite(logits).all():
        raise ReleaseError(f"{model.name}: its answer is not a row of finite logits per image")
    return Answer(logits, found["onnxruntime"], found["peak_rss_bytes"])


def self_test(folder: Path, manifest: Manifest, name: str, timeout: float = 60) -> Answer:
    """Run the self-test of one of a release's models, and return its answer.

    Args:
        folder: the release, verified already.
        manifest: its manifest.
        name: file name of the model.
        timeout: seconds after which the model counts as hung.

    Raises:
        ReleaseError: the model crashed, hung, or answered otherwise than it should.
    """
    expected = manifest.self_test.expected[name]
    found = ask(folder / name, manifest.self_test.pixels(), manifest.input.normalization, timeout)
    wanted = expected.values()
    if found.logits.shape != wanted.shape:
        raise ReleaseError(f"{name}: self-test: {found.logits.shape[1]} logits, expected {wanted.shape[1]}")
    difference = float(np.abs(found.logits - wanted).max() / max(1.0, float(np.abs(wanted).max())))
    exact = expected.exact and found.onnxruntime == manifest.runtime.onnxruntime
    if exact and difference:
        raise ReleaseError(f"{name}: self-test: logits differ by {difference:.1e}, expected none")
    if not difference <= expected.tolerance:
        raise ReleaseError(f"{name}: self-test: logits differ by {difference:.1e}, tolerance {expected.tolerance:.0e}")
    if (found.logits.argmax(axis=1) != wanted.argmax(axis=1)).any():
        raise ReleaseError(f"{name}: self-test: another class than expected")
    return found
