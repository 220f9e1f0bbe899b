"""The consensus that the server makes of the devices' and the teacher's soft labels: pure functions, a family a file.

A rule takes `Votes` and returns a `Consensus`. Each sample may have another set of voters; no rule divides by the
number of devices. docs/consensus.md compares the rules.
"""

from functools import partial

from fedstill.consensus.averaging import mean, weighted
from fedstill.consensus.density import density_experts
from fedstill.consensus.experts import FLOOR, UNHELD, class_experts, log_pool, mixed
from fedstill.consensus.order import median, trimmed_mean
from fedstill.consensus.priors import prior_calibrated
from fedstill.consensus.reputation import confidence_threshold, informedness, reputable_experts
from fedstill.consensus.selecting import selection
from fedstill.consensus.selective import selective_teacher
from fedstill.consensus.sharpening import enhanced_era, era
from fedstill.consensus.votes import Consensus, Rule, Votes, entropies
from fedstill.consensus.weighting import certainty_weighted, entropy_weighted
from fedstill.consensus.weiszfeld import geometric_median
from fedstill.settings import ConsensusSettings

__all__ = [
    "FLOOR",
    "RULES",
    "UNHELD",
    "Consensus",
    "Rule",
    "Votes",
    "certainty_weighted",
    "class_experts",
    "confidence_threshold",
    "density_experts",
    "enhanced_era",
    "entropies",
    "entropy_weighted",
    "era",
    "geometric_median",
    "informedness",
    "log_pool",
    "mean",
    "median",
    "mixed",
    "prior_calibrated",
    "reputable_experts",
    "rules",
    "selection",
    "selective_teacher",
    "trimmed_mean",
    "weighted",
]


def rules(settings: ConsensusSettings) -> dict[str, Rule]:
    """Return the built-in rules by name, with their parameters from the settings."""
    return {
        "mean": mean,
        "era": partial(era, **settings.era.model_dump()),
        "enhanced-era": partial(enhanced_era, **settings.enhanced_era.model_dump()),
        "certainty": certainty_weighted,
        "entropy": entropy_weighted,
        "prior-calibrated": partial(prior_calibrated, **settings.prior_calibrated.model_dump()),
        "class-experts": class_experts,
        "density-experts": density_experts,
        "selection": partial(selection, **settings.selection.model_dump()),
        "selective-teacher": selective_teacher,
        "median": median,
        "trimmed-mean": partial(trimmed_mean, **settings.trimmed_mean.model_dump()),
        "geometric-median": partial(geometric_median, **settings.geometric_median.model_dump()),
        "reputable-experts": partial(
            reputable_experts, memory=settings.reputation.memory, floor=settings.reputation.floor
        ),
    }


RULES: dict[str, Rule] = rules(ConsensusSettings())
