"""What a label cache saves: labels that a device sends relative to DS-FL, by the rule here and the published one.

DS-FL (Itahara et al. 2020, arXiv 2008.06180) sends a label about every drawn sample in every round. SCARLET (Azuma et
al. 2025, arXiv 2504.19602) keeps the consensus for D rounds on both sides and asks only about what is not cached; its
code tests expiry in two ways and drops an expired label instead of replacing it, so that two questions are asked per
cycle. No training: which labels travel depends on the draws alone.

`python -m benchmarks.label_traffic` prints a table; `--json` the fraction of one duration.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstill.exchange import ServerExchange
from fedstill.packet import Context
from fedstill.soft_labels import Bools, Floats, Ints, draw

FOLDER = Path(__file__).parent / "results" / "label_traffic"
DURATIONS = (25, 50, 100, 200)
CLASSES = 2  # the smallest soft label: only how many are sent matters


@dataclass(frozen=True)
class Load:
    """How much is drawn.

    Attributes:
        proxy: samples of the proxy set.
        per_round: samples drawn in each round.
        rounds: rounds.
        seed: run seed.
    """

    proxy: int = 10_000
    per_round: int = 1_000
    rounds: int = 2_000
    seed: int = 0

    def draws(self) -> Iterator[tuple[int, Ints]]:
        """Yield each round with the samples that it draws."""
        for number in range(1, self.rounds + 1):
            yield number, draw(self.seed, number, self.proxy, self.per_round, independent=True)


def refreshing(load: Load, duration: int) -> float:
    """Return the fraction that devices send with the product's own exchange, which refreshes labels on expiry."""
    context = Context(load.seed, b"counting", load.proxy, CLASSES)
    exchange = ServerExchange(context, load.per_round, load.rounds, duration=duration, independent=True)
    sent = 0
    for number in range(1, load.rounds + 1):
        asked = exchange.ids(number)
        sent += len(asked)
        labels: Floats = np.full((len(asked), CLASSES), 1 / CLASSES, dtype=np.float32)
        exchange.publish(number, asked, labels)
    return sent / (load.rounds * load.per_round)


def published(load: Load, duration: int) -> float:
    """Return the fraction that devices send with SCARLET's published rules (its server's two tests of expiry).

    In round t a drawn sample is asked about unless it has a label from round t0 with t0 + D > t. The answer becomes the
    label when there is none; it is thrown away when t - t0 <= D, so at an age of exactly D; and else the entry is
    cleared, to be cached again only at a later draw.
    """
    made = np.zeros(load.proxy, dtype=np.int64)  # t0, 0: no label
    sent = 0
    for number, drawn in load.draws():
        of_drawn = made[drawn]
        absent: Bools = of_drawn == 0
        sent += int((absent | (of_drawn + duration <= number)).sum())
        made[drawn] = np.where(absent, number, np.where(number - of_drawn <= duration, of_drawn, 0))
    return sent / (load.rounds * load.per_round)


def table(load: Load, durations: Sequence[int]) -> str:
    """Return the fractions by duration as a Markdown table."""
    rows = ["| D | published rule | refresh on expiry | saved |", "|---|---|---|---|"]
    for duration in durations:
        theirs, ours = published(load, duration), refreshing(load, duration)
        rows.append(f"| {duration} | {theirs:.4f} | {ours:.4f} | {1 - ours / theirs:.1%} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or with `--json` the fraction of one duration."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.label_traffic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--duration", type=int, help="rounds D that a label lasts (default: several)")
    parser.add_argument("--json", action="store_true", help="print one object; the duration is 50 unless given")
    for name, value in vars(Load()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args(arguments)
    load = Load(options.proxy, options.per_round, options.rounds, options.seed)
    if not (0 < load.per_round <= load.proxy and load.rounds > 0 and load.seed >= 0):
        parser.error("--per-round has to lie in 1..--proxy, --rounds above 0, --seed not below 0")
    if options.duration is not None and options.duration < 0:
        parser.error("--duration has to be 0 or more")
    if options.json:
        duration = 50 if options.duration is None else options.duration
        fractions = {"uplink_fraction": refreshing(load, duration), "published_fraction": published(load, duration)}
        print(json.dumps({**fractions, "duration": duration, **vars(load)}))
    else:
        print(table(load, DURATIONS if options.duration is None else [options.duration]))


if __name__ == "__main__":
    main()
