"""Settings that server and devices share; scenario files set them, section by section."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fedstill.codecs import NAMES, is_codec
from fedstill.config import Settings
from fedstill.fit import Fit


def _is_encoding(name: str) -> str:
    if not is_codec(name):
        raise ValueError(f"no encoding {name!r}; there are {NAMES}")
    return name


def _is_encoding_or_empty(name: str) -> str:
    return _is_encoding(name) if name else name


Encoding = Annotated[str, AfterValidator(_is_encoding)]
OwnEncoding = Annotated[str, AfterValidator(_is_encoding_or_empty)]


LearnerKind = Literal["torch", "head", "observer"]
"""How a device learns: the whole student in torch; a softmax head on a backbone's features, without torch; not at all:
it answers with what it got and measures that."""


class FitSettings(Settings):
    """How a model is fitted to samples."""

    epochs: float = Field(ge=0)
    """Passes over the samples, in parts of a pass if need be; 0: exactly `min_steps` steps, however many samples."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least, however few the samples."""
    batch: int = Field(default=64, ge=2)
    """Samples per optimizer step."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    optimizer: Literal["adam", "sgd"] = "sgd"
    """`adam` is AdamW, `sgd` has Nesterov momentum."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd`; 0: plain stochastic gradient descent."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay."""
    decay: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls within one fit."""
    augment: Literal["none", "flip", "full"] = "full"
    """`full`: shift and mirror images as the task allows; `flip`: only mirror them; soft labels are of images as they
    are, so a distillation with few steps learns less from shifted ones."""

    def of(self, samples: int) -> Fit:
        """Return the fit for this many samples."""
        return Fit(
            steps=max(self.min_steps, math.ceil(self.epochs * samples / self.batch)),
            batch=self.batch,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay=self.decay,
            augment=self.augment,
        )


class TemperatureSettings(Settings):
    """The temperature T of a distillation, by round."""

    schedule: Literal["constant", "linear", "exponential", "cosine"] = "constant"
    """How T moves from `start` in the first round to `end` in the last."""
    start: float = Field(default=1.0, gt=0)
    """T in the first round."""
    end: float = Field(default=1.0, gt=0)
    """T in the last round; not used by `constant`."""


class ExchangeSettings(Settings):
    """What travels in a round, and when a round counts."""

    per_round: int = Field(gt=0)
    """Proxy samples that a round draws."""
    draw: Literal["walk", "independent"] = "walk"
    """`walk`: consecutive rounds walk through a permutation of the proxy set; `independent`: each round draws anew."""
    duration: int = Field(default=0, ge=0, lt=2**31)
    """Rounds D that a consensus lasts: a drawn sample is asked about when its consensus is as old as D or unknown, and
    students learn from younger ones only. A D of several times the rounds that draw the whole proxy set leaves few
    samples without a label in use. 0: all that is drawn is asked about, and a consensus lasts until it is replaced."""
    uplink: Encoding = "float16"
    """Encoding of the devices' soft labels, unless their device class sets another."""
    downlink: Encoding = "float16"
    """Encoding of the consensus, unless a device class sets another; what the server's own models learn from."""
    entropy_coding: bool = False
    """Whether payloads are coded adaptively, both ways: the same labels in fewer bytes, for some milliseconds more per
    thousand samples."""
    delta: bool = False
    """Whether packets refer to labels that the other side holds already, both ways; needs `entropy_coding`."""
    quorum: float = Field(default=0.5, gt=0, le=1)
    """Share of the devices whose answers a round needs."""
    timeout: float = Field(default=3600, gt=0)
    """Seconds to wait for answers."""
    active: int = Field(default=0, ge=0)
    """Devices that a round asks, drawn from the run's seed; 0: all. The quorum is a share of these."""
    ttl: float = Field(default=3600, gt=0)
    """Seconds after which a host no longer starts on a round's message."""

    @model_validator(mode="after")
    def _delta_is_coded(self) -> "ExchangeSettings":
        if self.delta and not self.entropy_coding:
            raise ValueError("delta saves nothing unless entropy_coding is on")
        return self


class DeviceSettings(Settings):
    """How a device learns in a round: digest, then revisit, then predict."""

    first_digest: FitSettings
    """Distillation from the teacher's soft labels about the whole proxy set, before any consensus. With a certainty by
    `background`: how the device learns its classes against the proxy set in its first round."""
    digest: FitSettings | None = None
    """Distillation from the consensus on the proxy samples that the device's cache knows; absent with a `certainty`
    that learns the consensus in the revisit."""
    revisit: FitSettings
    """Training on private data."""
    anchor_weight: float = Field(default=0.0, ge=0)
    """Weight of the digest's loss in each step of the revisit, on as many proxy samples: a device that takes many
    private steps forgets less of the consensus so; 0: private samples alone."""
    temperature: TemperatureSettings = TemperatureSettings()
    """T of the digest."""
    logit_adjustment: float = Field(default=1.0, ge=0)
    """tau: how much of the log class prior is added to the logits in the revisit; 0: plain cross-entropy."""
    prior_floor: float = Field(default=0.01, gt=0, le=1)
    """Smallest class prior in that adjustment, so that absent classes are not pushed down without bound."""
    certainty: Literal["none", "background", "k-means"] = "none"
    """`background`: the device learns in the revisit to tell its own classes from the proxy set as a whole
    (`client/background.py`), votes among its own classes only, and sends how sure it is that a sample is of one of
    them, a byte per sample. `k-means`: it learns as with `none`, and sends how far a sample lies in its own domain by
    centroids of its data and of the proxy set (`client/centroids.py`). `none`: it sends no certainty."""
    centroids: int = Field(default=10, ge=1)
    """Of either, with a certainty by `k-means`."""
    send_certainty: bool = True
    """Whether the certainty travels; without, it decides on abstentions alone."""
    abstain_below: float = Field(default=0.0, ge=0, lt=1)
    """A device abstains about a sample when its certainty, or without one its largest probability, is below this."""
    send_class_prior: bool = True
    """Whether the share of each class travels with the soft labels, one byte per class."""


class TeacherSettings(Settings):
    """The server's large model."""

    architecture: str
    """Its architecture."""
    initial: FitSettings
    """Supervised training on the server's labelled samples before the first round."""
    update: FitSettings
    """Distillation from the consensus in each round."""
    temperature: float = Field(default=1.0, gt=0)
    """T of an update's distillation."""
    labelled_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of the labelled samples' cross-entropy in an update."""
    guard_tolerance: float = Field(default=0.0, ge=0, le=1)
    """Loss of accuracy on the guard set that an update may cost before it is rolled back."""


class EraSettings(Settings):
    """Rule `era`."""

    temperature: float = Field(default=0.1, gt=0)
    """T of softmax(mean / T)."""


class EnhancedEraSettings(Settings):
    """Rule `enhanced-era`."""

    beta: float = Field(default=1.5, gt=0)
    """Exponent of the mean; 1 keeps it."""


class PriorCalibratedSettings(Settings):
    """Rule `prior-calibrated`."""

    floor: float = Field(default=0.01, gt=0, le=1)
    """Smallest class prior that is divided out."""


class SelectionSettings(Settings):
    """Rule `selection`."""

    certainty: float = Field(default=0.5, ge=0, le=1)
    """Votes below this certainty are left out."""
    ambiguity: float = Field(default=1.0, ge=0, le=2)
    """Samples whose mean is further than this from one-hot, in L1, are dropped."""


class TrimmedMeanSettings(Settings):
    """Rule `trimmed-mean`."""

    share: float = Field(default=0.2, ge=0, lt=0.5)
    """Share of the voters trimmed on either side."""


class GeometricMedianSettings(Settings):
    """Rule `geometric-median`."""

    iterations: int = Field(default=50, ge=1)
    """Iterations at most."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest move of a label at which the iteration ends."""


class ReputationSettings(Settings):
    """Rule `reputable-experts`."""

    memory: float = Field(default=0.5, ge=0, lt=1)
    """Share of the earlier reputation in how fast a lost one is regained; 0: each round stands alone."""
    floor: float = Field(default=0.01, ge=0, le=1)
    """Added to each class share, so that who knows a class outweighs who only claims it."""
    anchor_accuracy: float = Field(default=0.99, gt=0, le=1)
    """The teacher is sure where guard samples of such confidence are right this often."""


class ConsensusSettings(Settings):
    """What the server makes of the votes."""

    rule: str = "reputable-experts"
    """A built-in rule, or `file.py:object` of a function from Votes to Consensus."""
    teacher_weight: float = Field(default=0.2, ge=0, le=1)
    """Share of the teacher's own soft labels in the consensus."""
    era: EraSettings = EraSettings()
    enhanced_era: EnhancedEraSettings = EnhancedEraSettings()
    prior_calibrated: PriorCalibratedSettings = PriorCalibratedSettings()
    selection: SelectionSettings = SelectionSettings()
    trimmed_mean: TrimmedMeanSettings = TrimmedMeanSettings()
    geometric_median: GeometricMedianSettings = GeometricMedianSettings()
    reputation: ReputationSettings = ReputationSettings()


class AdaptationSettings(Settings):
    """How a class student's distillation follows the student's own state (`fedstill/adaptive.py`)."""

    method: Literal["none", "standardized", "weighted", "curriculum"] = "none"
    """`standardized`: a temperature for each sample, by how far its logits spread; `weighted`: a weight for each
    sample, by how well the student knows it; `curriculum`: a temperature for each step, learned against the student;
    `none`: T of the schedule for all."""
    share: float = Field(default=0.9, gt=0, le=1)
    """Share of that loss; the rest is the plain one at T = 1."""


class StudentSettings(Settings):
    """The server's student of each device class."""

    distil: FitSettings
    """Distillation from the consensus in each round, on the proxy samples that have a label."""
    last: FitSettings | None = None
    """What replaces it in the last round; absent: nothing does. With many rounds of a few steps, what is released needs
    one fit whose learning rate falls to zero over all of its steps."""
    temperature: TemperatureSettings = TemperatureSettings()
    """T of the distillation."""
    adaptation: AdaptationSettings = AdaptationSettings()
    """What follows the student's state in it; T then is the base temperature of the method."""
    quantization_aware: FitSettings | None = None
    """Further distillation from the last consensus, under static int8's rounding, of a student of that format that
    loses more than its gate allows to calibration alone; needs torchao. Absent: such a student is refused."""
    calibration_samples: int = Field(default=300, ge=1, le=500)
    """Proxy samples that calibrate the quantization."""
