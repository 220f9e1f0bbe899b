"""Settings that server and devices share; scenario files set them, section by section."""

import math
from typing import Literal

from pydantic import Field

from fedstill.config import Settings
from fedstill.fit import Fit
from fedstill.packet import ENCODINGS

Encoding = Literal["float32", "float16", "simplex8"]
assert set(ENCODINGS) == {"float32", "float16", "simplex8"}


class FitSettings(Settings):
    """How a model is fitted to samples."""

    epochs: float = Field(gt=0)
    """Passes over the samples, in parts of a pass if need be."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least, however few the samples."""
    batch: int = Field(default=64, ge=2)
    """Samples per optimizer step."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    optimizer: Literal["adam", "sgd"] = "sgd"
    """`adam` is AdamW, `sgd` has Nesterov momentum 0.9."""
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
    """Proxy samples that a round is about."""
    uplink: Encoding = "float16"
    """Encoding of the devices' soft labels."""
    downlink: Encoding = "float16"
    """Encoding of the consensus."""
    quorum: float = Field(default=0.5, gt=0, le=1)
    """Share of the devices whose answers a round needs."""
    timeout: float = Field(default=3600, gt=0)
    """Seconds to wait for answers."""
    ttl: float = Field(default=3600, gt=0)
    """Seconds after which a host no longer starts on a round's message."""


class DeviceSettings(Settings):
    """How a device learns in a round: digest, then revisit, then predict."""

    first_digest: FitSettings
    """Distillation from the teacher's soft labels about the whole proxy set, before any consensus."""
    digest: FitSettings
    """Distillation from the consensus on the proxy samples that the device's cache knows."""
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
    abstain_below: float = Field(default=0.0, ge=0, lt=1)
    """A device abstains about a sample when its largest probability is below this."""
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


class ConsensusSettings(Settings):
    """What the server makes of the votes."""

    rule: str = "class-experts"
    """A built-in rule, or `file.py:object` of a function from Votes to Consensus."""
    teacher_weight: float = Field(default=0.2, ge=0, le=1)
    """Share of the teacher's own soft labels in the consensus."""


class StudentSettings(Settings):
    """The server's student of each device class."""

    distil: FitSettings
    """Distillation from the consensus in each round, on the proxy samples that have a label."""
    temperature: TemperatureSettings = TemperatureSettings()
    """T of the distillation."""
    calibration_samples: int = Field(default=300, ge=1, le=500)
    """Proxy samples that calibrate the quantization."""
