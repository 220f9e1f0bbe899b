"""Checks of a scenario that need the code it names: everything is loaded once before a run folder is begun."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from client.executors.choose import executor_of
from fedstill.codecs import codec
from fedstill.consensus import RULES
from fedstill.errors import ConfigError, ExportError
from fedstill.learning import build
from fedstill.loading import load_object, resolve
from fedstill.models import architecture
from fedstill.release.manifest import FLOAT_FILE
from fedstill.tasks import Task, load_task
from server.delivery.summary import read as read_telemetry
from simulations.fleet.run import check as check_fleet
from simulations.partitions import NATURAL, PARTITIONS, natural
from simulations.scenario import Scenario

TEACHER = "teacher.architecture"


def validate(scenario: Scenario, *, elsewhere: bool = False) -> None:
    """Load the task, all architectures, encodings, the partition and the consensus rule that a scenario names.

    Args:
        scenario: of the run.
        elsewhere: whether the devices are computed on other machines, with whatever these have.

    Raises:
        ConfigError: one of them does not exist or suit the task, an architecture does not return logits for the
            task's images, the telemetry can't be read, this machine lacks what the executor needs, or the fleet can't
            compute the students.
    """
    task = load_task(scenario.task)
    if not elsewhere:
        executor_of(scenario.executor, 1, scenario.cohort)
    encodings = {"exchange.uplink": scenario.exchange.uplink, "exchange.downlink": scenario.exchange.downlink}
    for name, kind in scenario.device_classes.items():
        own = {"uplink": kind.uplink, "downlink": kind.downlink}
        encodings |= {f"device_classes.{name}.{way}": encoding for way, encoding in own.items() if encoding}
    for key, encoding in encodings.items():
        try:
            codec(encoding, task.classes)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error
    if scenario.students.quantization_aware is not None:
        from server.release import aware  # with exporter and quantizers, for the few scenarios that ask for it

        if not aware.available():
            raise ConfigError(
                "students.quantization_aware needs torchao: install the extra server on x86-64, or unset it"
            )
    if scenario.telemetry:
        read_telemetry(Path(scenario.telemetry))
    resolve("partition rule", scenario.partition.rule, {**PARTITIONS, NATURAL: natural})
    resolve("consensus rule", scenario.consensus.rule, RULES)
    for half in (scenario.method.server, scenario.method.device):
        if half:
            load_object(half)
    named = {f"device_classes.{name}.student": kind.student for name, kind in scenario.device_classes.items()}
    if scenario.teacher is not None:
        named[TEACHER] = scenario.teacher.architecture
    for place, name in named.items():
        try:
            model = build(architecture(name), task, seed=0)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        check_logits(place, name, model, task)
        if place != TEACHER and ":" in name and not scenario.method.server:
            _check_export(place, name, model, task)
    check_fleet(scenario)


def _check_export(place: str, name: str, model: nn.Module, task: Task) -> None:
    """Check before all the training that a student of somebody's own can be released after it."""
    from server.release.export import export  # with the exporter, which built-in students don't need so early

    with tempfile.TemporaryDirectory() as folder:
        try:
            export(model, task, Path(folder) / FLOAT_FILE)
        except ExportError as error:
            raise ConfigError(f"{place}: {name!r} could not be released: {error}") from error


def check_logits(place: str, name: str, model: object, task: Task) -> None:
    """Check that a model returns logits for a task's images.

    Args:
        place: where the model is named.
        name: its architecture.
        model: what was built of it.
        task: what it is to learn.

    Raises:
        ConfigError: it does not.
    """
    input_shape, classes = task.input_shape, task.classes
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{place}: {name!r} does not return a torch module")
    model.eval()
    try:
        with torch.no_grad():
            shape = list(model(torch.zeros(2, *input_shape)).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{place}: {name!r} fails on images of {list(input_shape)}: {error}".splitlines()[0]
        ) from error
    if shape != [2, classes]:
        raise ConfigError(f"{place}: {name!r} returns {shape} for two images, expected [2, {classes}]")
