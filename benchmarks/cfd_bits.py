"""CFD's bit count: what packets take beside the formulas, and what coding and deltas leave of it.

Protocol P3's exact check of CFD (Sattler, Marban, Rischke and Samek 2022, arXiv 2012.00632): n labels about C classes
take n * C * 32 bits as floats and n * log2(C) as 1-bit labels, 3.2 MB and 33.2 kB at the paper's n = 80,000 and C = 10.
Sizes are those of serialized packets and their payloads. The labels are those of a softmax regression on 300
handwritten digits with classes skewed as a device's are (Dirichlet 0.3), about digits that are repeated with noise to n
samples; the second round's are those after one more epoch.

`python -m benchmarks.cfd_bits` prints the table, `--json` prints it for machines; `benchmarks/results/cfd_bits` keeps
what docs/wire.md shows.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedstill.codecs import codec
from fedstill.delta import Base
from fedstill.errors import ConfigError
from fedstill.packet import Context, encode
from fedstill.soft_labels import Floats, one_hot, soft_labels
from simulations.sources import load_digits

CLASSES = 10
ENCODINGS = ("float32", "float16", "logits16", "simplex8", "simplex4", "simplex2", "simplex1", "top3")


@dataclass(frozen=True)
class Row:
    """One encoding's sizes in bytes.

    Attributes:
        encoding: its name.
        formula: n * bits / 8.
        payload: of the plain packet.
        packet: the plain packet, headers and all.
        coded: the packet, coded adaptively.
        delta: the second round's packet, a delta to the first.
    """

    encoding: str
    formula: float
    payload: int
    packet: int
    coded: int
    delta: int


def bits(encoding: str, classes: int) -> float:
    """Return the bits of a label by the encoding's formula."""
    if encoding.startswith("simplex") and encoding != "simplex8":
        total = 2 ** int(encoding.removeprefix("simplex")) - 1
        return math.log2(math.comb(classes + total - 1, classes - 1))
    if encoding.startswith("top"):
        kept = int(encoding.removeprefix("top"))
        return math.log2(math.comb(classes, kept) * math.comb(255 + kept, kept))
    return classes * {"float32": 32, "float16": 16, "logits16": 16, "simplex8": 8}[encoding]


def _softmax(logits: npt.NDArray[np.floating[Any]]) -> Floats:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def two_rounds(samples: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return the soft labels of two consecutive rounds `[samples, 10]` each: softmax regression, 40 and 41 epochs."""
    arrays = load_digits(None)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(CLASSES, 0.3))[arrays.train_labels]
    own = rng.choice(len(shares), size=300, p=shares / shares.sum())
    features = arrays.train_images.reshape(len(arrays.train_images), -1).astype(np.float32) / 255
    asked = rng.integers(len(features), size=samples)
    shown = features[asked] + rng.normal(0, 0.05, (samples, features.shape[1])).astype(np.float32)
    weights = np.zeros((features.shape[1], CLASSES), dtype=np.float32)
    wanted = one_hot(arrays.train_labels[own], CLASSES)
    rounds = []
    for epoch in range(1, 42):
        for batch in np.array_split(rng.permutation(len(own)), 10):
            error = _softmax(features[own[batch]] @ weights) - wanted[batch]
            weights -= 0.5 * features[own[batch]].T @ error / len(batch)
        if epoch >= 40:
            rounds.append(_softmax(shown @ weights))
    return rounds[0], rounds[1]


def measure(samples: int, encodings: Sequence[str] = ENCODINGS) -> Iterator[Row]:
    """Yield the sizes of each encoding for that many samples."""
    context = Context(seed=0, proxy_digest=bytes(8), proxy_size=samples, classes=CLASSES)
    ids = np.arange(samples)
    first, second = (soft_labels(ids, rows) for rows in two_rounds(samples))

    for encoding in encodings:
        base = Base.nothing(encoding, samples, CLASSES).extended(first, 1)
        plain = encode(context, second, round_number=2, samples_round=2, encoding=encoding)
        coded, delta = (
            encode(
                context, second, round_number=2, samples_round=2, encoding=encoding, entropy_coded=True, base=extended
            )
            for extended in (None, base)
        )
        yield Row(
            encoding,
            samples * bits(encoding, CLASSES) / 8,
            len(plain.payload),
            plain.ByteSize(),
            coded.ByteSize(),
            delta.ByteSize(),
        )


def table(rows: list[Row], samples: int) -> str:
    """Return a Markdown table."""
    lines = [
        f"Bytes of {samples:,} labels about {CLASSES} classes:",
        "",
        "| encoding | formula | payload | packet | entropy coded | delta, coded | bits a label |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.encoding} | {row.formula:,.1f} | {row.payload:,} | {row.packet:,} | {row.coded:,} "
            f"| {row.delta:,} | {8 * row.payload / samples:.3f} → {8 * row.delta / samples:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="packet sizes beside the formulas of CFD")
    parser.add_argument("--samples", type=int, default=10_000, help="labels in a packet (default: 10000)")
    parser.add_argument("--encodings", nargs="+", default=ENCODINGS, help="encodings to measure (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    if arguments.samples < 1:
        parser.error("--samples: at least 1")
    try:
        for encoding in arguments.encodings:
            codec(encoding, CLASSES)
    except ConfigError as error:
        parser.error(f"--encodings: {error}")
    rows = list(measure(arguments.samples, arguments.encodings))
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else table(rows, arguments.samples))


if __name__ == "__main__":
    main()
