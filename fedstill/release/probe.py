"""The child process of a self-test, `python -m fedstill.release.probe`: a model that crashes or hangs takes only this.

Reads one JSON object from standard input (`model`: path, `images`: base64, `shape`, `normalization`, `seconds`) and
writes one: `logits`, the runtime's version, and the peak memory of this process. After `seconds` it ends, asked for or
not: whoever asked may be gone.
"""

import json
import signal
import sys
from pathlib import Path

import onnxruntime as ort

from fedstill.release.manifest import Normalization, SelfTest
from fedstill.release.model import normalized, one_by_one, session


def peak_rss() -> int:
    """Return this process's peak resident bytes; not `getrusage`, which starts with the peak of the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    signal.alarm(request["seconds"])
    images = SelfTest(images=request["images"], shape=request["shape"], expected={}).pixels()
    inputs = normalized(images, Normalization(**request["normalization"]))
    logits = one_by_one(session(Path(request["model"]).read_bytes()), inputs)
    answer = {"logits": logits.tolist(), "onnxruntime": ort.__version__, "peak_rss_bytes": peak_rss()}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
