"""The learner that a device class asks for; torch and ONNX Runtime are imported by those that need them alone."""

from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

from client.learner import DeviceData, Learner
from fedstill import packet
from fedstill.errors import ConfigError
from fedstill.settings import DeviceSettings, Encoding, LearnerKind
from fedstill.tasks import Task

if TYPE_CHECKING:  # what stands on one has imported it
    from fedstill.release.backbone import Backbone


class Common(TypedDict):
    """What all learners are made of; `client.device.Device` says what it is."""

    number: int
    task: Task
    context: packet.Context
    settings: DeviceSettings
    uplink: Encoding
    data: DeviceData
    folder: Path
    entropy_coded: NotRequired[bool]
    delta: NotRequired[bool]
    virtual: NotRequired[bool]


def learner(kind: LearnerKind, student: str, backbone: "Backbone | None", **common: Unpack[Common]) -> Learner:
    """Return a device that learns in this way.

    Args:
        kind: the way.
        student: architecture of what `torch` trains.
        backbone: what the others stand on.
        common: the rest.

    Raises:
        ConfigError: there is no backbone for a learner that needs one.
    """
    if kind == "torch":
        from client.device import Device
        from fedstill.workers import prepare_torch

        prepare_torch()
        return Device(student=student, **common)
    from client.light.device import HeadLearner, Observer

    if backbone is None:
        raise ConfigError(f"a learner of kind {kind!r} needs a backbone")
    return HeadLearner(backbone=backbone, **common) if kind == "head" else Observer(backbone=backbone, **common)
