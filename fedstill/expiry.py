"""When a label is asked for again: the one rule that server and devices share.

A label cache saves questions: a drawn sample whose cached consensus is younger than the duration D is not asked about
(SCARLET, Azuma et al. 2025, arXiv 2504.19602). Here a consensus that reached D is asked for again at its next draw, and
the answer replaces it at once on both sides, so that each label costs one question in D rounds and none in use is as
old as D. A rule that drops the old label and waits for one more draw to cache the new one asks nearly twice as often.

The age of a consensus is the number of rounds since the round that made it: 0 at the server in that round, 1 when the
devices get it. Cache version v is the state after round v - 1, so a label that changed at version v has age
r - (v - 1) in round r. What the teacher knew before the first round (version 1) is no consensus and has no age: it
never saves a question, and it stays in use until the first consensus about its sample replaces it.
"""

from fedstill.soft_labels import Bools, Ints

INITIAL = 1  # cache version of what the teacher knew before the first round


def due(changed: Ints, round_number: int, duration: int) -> Bools:
    """Return which samples a round asks about when it draws them `[samples]`.

    Args:
        changed: cache version at which each label last changed, 0: unknown `[samples]`.
        round_number: the round, from 1.
        duration: D in rounds; 0 or 1: a label never saves a question.
    """
    result: Bools = (changed <= INITIAL) | (round_number - (changed - 1) >= duration)
    return result


def in_use(changed: Ints, round_number: int, duration: int) -> Bools:
    """Return which labels students learn from in a round `[samples]`; arguments as in `due`.

    With a duration of 0 labels stay in use until a new one replaces them.
    """
    result: Bools = (changed == INITIAL) | ((changed > 0) & (~due(changed, round_number, duration) | (duration == 0)))
    return result
