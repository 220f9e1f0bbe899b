"""The state of a device without torch: NumPy arrays in one file, whose zip checksums are verified."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.states import checked_zip
from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.codecs import codec
from fedstill.delta import Base
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import Floats

SUFFIX = ".npz"


@dataclass(frozen=True)
class LightState:
    """What lasts of a round.

    Attributes:
        round_number: the round.
        head: after it `[width + 1, classes]`.
        cache: the label cache.
        answer: what was answered.
        bases: what was said up to the acknowledged packet, and with the last one.
    """

    round_number: int
    head: Floats
    cache: LabelCache
    answer: DeviceAnswer
    bases: tuple[Base, ...]


def write(state: LightState) -> bytes:
    """Return the content of a state's file."""
    facts = {
        "round": state.round_number,
        "version": state.cache.version,
        "metrics": dict(state.answer.metrics),
        "bases": [[base.encoding, base.version] for base in state.bases],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
        "packet": np.frombuffer(state.answer.packet, dtype=np.uint8),
        "head": state.head,
        "labels": state.cache.labels,
        "changed": state.cache.changed,
    }
    for place, base in enumerate(state.bases):
        arrays[f"codes-{place}"], arrays[f"known-{place}"] = base.codes, base.known
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # it takes them for its other argument
    return content.getvalue()


def read(path: Path, context: packet.Context, shape: tuple[int, ...]) -> LightState:
    """Return the state in a file.

    Args:
        path: the file.
        context: what all packets of the run share.
        shape: of the head.

    Raises:
        client.states.UNREADABLE: it is not what was written, or is about another proxy set or backbone.
    """
    checked_zip(path)
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(stored["facts"].tobytes())
        head, labels = stored["head"], stored["labels"]
        if labels.shape != (context.proxy_size, context.classes) or head.shape != shape:
            raise ValueError("it is about another proxy set or backbone")
        bases = tuple(
            Base(encoding, version, stored[f"codes-{place}"].astype(codec(encoding, context.classes).kind), known)
            for place, (encoding, version) in enumerate(facts["bases"])
            for known in [stored[f"known-{place}"]]
        )
        answer = DeviceAnswer(stored["packet"].tobytes(), facts["metrics"])
        return LightState(facts["round"], head, LabelCache(labels, stored["changed"], facts["version"]), answer, bases)
