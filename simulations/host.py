"""A simulated host: carries every n-th virtual device and computes them with the scenario's executor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client.device import Device
from client.executors.choose import executor_of
from client.learner import ROUND_TEST_SAMPLES, DeviceData, Learner
from client.learners import learner
from fedstill.errors import ConfigError
from fedstill.loading import load_object
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import Task, load_task
from fedstill.workers import preload
from simulations.attacks import hostile_answer, hostile_devices
from simulations.parts import part_done
from simulations.scenario import Scenario
from simulations.setup import Setup, setup_from
from simulations.shelf import Labelled, Shelf, kept_shelf, open_shelf
from simulations.stream import Arrived, arrived
from simulations.stream_device import StreamDevice

if TYPE_CHECKING:
    from fedstill.release.backbone import Backbone

preload(__name__)
DEVICE_TESTS = 10_000_000
"""Test samples that all devices together predict after the last round, each at least as many as in the other rounds:
more would cost a fleet of thousands more than its learning."""


def device_data(shelf: Shelf, number: int) -> DeviceData:
    """Return what a virtual device learns from, and what it is measured on.

    That is the global test set, or a part of it that begins where the one of the device before it ends: so devices
    are measured on all of it between them.
    """
    private, test = shelf.of_device(number), shelf.test
    whole, part = len(test.labels), max(ROUND_TEST_SAMPLES, DEVICE_TESTS // len(shelf.partition))
    if part < whole:
        own = np.arange(number * part, (number + 1) * part) % whole
        test = Labelled(test.images[own], test.labels[own])
    return DeviceData(private.images, private.labels, shelf.proxy, test.images, test.labels)


def data_in(scenario: Scenario, shelf: Shelf, number: int, round_number: int) -> tuple[DeviceData, Arrived]:
    """Return what a virtual device learns from in a round, and how it came to it."""
    own = device_data(shelf, number)
    rounds = scenario.rounds
    found = arrived(scenario.stream, own.images, own.labels, round_number, rounds, scenario.seed, number)
    return replace(own, images=found.images, labels=found.labels), found


def _backbone(shelf: Shelf, name: str, task: Task) -> "Backbone":
    from fedstill.release.backbone import Backbone  # with ONNX Runtime, which devices with torch do without

    return Backbone(shelf.backbone_path(name).read_bytes(), task, f"backbone of {name}")


def make_learner(scenario: Scenario, shelf: Shelf, number: int, folder: Path) -> Learner:
    """Return virtual device `number` of a scenario."""
    task = load_task(scenario.task)
    name = scenario.class_of(number)
    kind = scenario.device_classes[name]
    made: Callable[..., Learner]
    if scenario.stream.window:
        made = partial(StreamDevice, partial(data_in, scenario, shelf, number), student=kind.student)
    else:
        trains = kind.learner == "torch"
        backbone = None if trains else _backbone(shelf, name, task)
        made = partial(learner, kind.learner, kind.student, backbone, data=device_data(shelf, number))
    return made(
        number=number,
        task=task,
        context=shelf.context(scenario.seed, task.classes),
        settings=scenario.device,
        uplink=kind.uplink or scenario.exchange.uplink,
        folder=folder / f"device-{number:05d}",
        entropy_coded=scenario.exchange.entropy_coding,
        delta=scenario.exchange.delta,
        virtual=True,
    )


def make_device(scenario: Scenario, shelf: Shelf, number: int, folder: Path) -> Device:
    """Return virtual device `number` of a scenario, which trains with torch.

    Raises:
        ConfigError: its class learns without torch.
    """
    found = make_learner(scenario, shelf, number, folder)
    if not isinstance(found, Device):
        raise ConfigError(f"device {number} learns without torch")
    return found


def answer_device(setup: Setup, number: int, request: bytes) -> DeviceAnswer:
    """Let one device answer a request; runs in a worker."""
    device = make_learner(setup.scenario, kept_shelf(setup.assets), number, setup.device_states)
    return leaving(setup.scenario, device, device.answer(request))


def leaving(scenario: Scenario, device: Learner, answer: DeviceAnswer) -> DeviceAnswer:
    """Return what leaves the host: the device's answer, or what a hostile device makes of it."""
    attack = scenario.attack
    if attack.share and device.number in hostile_devices(attack, scenario.devices, scenario.seed):
        return hostile_answer(attack, device.context, device.uplink, device.number, answer)
    return answer


def device_half(scenario: Scenario) -> Callable[[Setup, int, bytes], DeviceAnswer]:
    """Return what answers a request for a device: the product's device, or what the scenario's method names."""
    named = scenario.method.device
    half: Callable[[Setup, int, bytes], DeviceAnswer] = load_object(named) if named else answer_device
    return half


@dataclass(frozen=True)
class SimulatedFleet:
    """All virtual devices of a run, made where they are computed.

    Attributes:
        setup: the run.
    """

    setup: Setup

    def answer(self, number: int, request: bytes) -> DeviceAnswer:
        """Let a device answer as the scenario's method does."""
        return device_half(self.setup.scenario)(self.setup, number, request)

    def device(self, number: int) -> Device | None:
        """Return a device of the product that trains with torch; None for others and a method's own devices."""
        scenario = self.setup.scenario
        if scenario.method.device or scenario.device_classes[scenario.class_of(number)].learner != "torch":
            return None
        return make_device(scenario, kept_shelf(self.setup.assets), number, self.setup.device_states)

    def student(self, number: int) -> str:
        """Return the architecture of a device's student; those of other learners are none of torch's."""
        scenario = self.setup.scenario
        kind = scenario.device_classes[scenario.class_of(number)]
        return kind.student if kind.learner == "torch" else f"{kind.learner} of {kind.student}"

    def leaving(self, device: Device, answer: DeviceAnswer) -> DeviceAnswer:
        """Return what leaves the host when a device gives this answer."""
        return leaving(self.setup.scenario, device, answer)


class SimulatedHost:
    """Host number `place` of `hosts`.

    Args:
        setup: the run.
        place: from 0.
        hosts: how many hosts share the devices.
    """

    def __init__(self, setup: Setup, place: int, hosts: int) -> None:
        self._setup = setup
        scenario = setup.scenario
        classes = scenario.classes_of_devices()
        self._devices = {number: classes[number] for number in range(place, len(classes), hosts)}
        self._executor = executor_of(scenario.executor, setup.workers, scenario.cohort)
        open_shelf(setup.assets, scenario)

    def devices(self) -> Mapping[int, str]:
        """Return the classes of this host's devices by device."""
        return self._devices

    def answer(self, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        """Return the devices' answers; devices with most samples start first, so that workers end together."""
        numbers = [number for number in requests if number in self._devices]
        sizes = kept_shelf(self._setup.assets).partition
        numbers.sort(key=lambda number: (-len(sizes[number]), number))
        own = {number: requests[number] for number in numbers}
        return self._executor.answer(SimulatedFleet(self._setup), own, part_done)


def build(run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> SimulatedHost:
    """Build the host of a node: `partition-id` of `num-partitions`, as Flower's simulation numbers them."""
    setup = setup_from(run_config, int(run_config["run-id"]))
    return SimulatedHost(setup, int(node_config.get("partition-id", 0)), int(node_config.get("num-partitions", 1)))
