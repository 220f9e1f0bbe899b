"""Label-cache transfer: a device copies soft labels from the caches of its k nearest neighbours, never from a server.

After Bistritz, Mann and Bambos 2020, "Distributed Distillation for On-Device Learning", NeurIPS 33 (devices average
their soft decisions about reference data with their neighbours' in a graph), with what travels kept in a label cache as
in Wu, Sun, Wang, Liu, Xu, Wang, Jiang, Gao and Lu 2023, "FedCache: A Knowledge Cache-driven Federated Learning
Architecture for Personalized Edge Intelligence", arXiv 2308.07816, whose cache is a server's. c_i(x): entry of device i
about proxy sample x; N_i: its k nearest devices (`method.neighbours`). In a round device i sets c_i(x) to the mean of
the c_j(x), j in N_i, that it gets, digests its cache, revisits its data, and serves c_i(x) <- (p_i(x) + k c_i(x)) /
(k + 1) about the round's draw, p_i its student's own prediction. So a label spreads one hop in a round.

The simulator relays what would travel between devices: up is one broadcast, down one packet per neighbour.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.serverapp import Grid

from client.device import revisit
from client.disk import Disk, Stored
from client.learner import work_of
from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.errors import PacketError
from fedstill.learning import predict, restored, state_of
from fedstill.models import architecture
from fedstill.packet import CONTRACT_VERSION, Context
from fedstill.rng import stream, torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import Floats, Ints, SoftLabels, draw, soft_labels
from fedstill.stored import load_cache, store_cache
from fedstill.tasks import load_task
from protos import baselines_pb2 as pb
from simulations.baselines.evaluation import evaluate
from simulations.baselines.half import Outcome, ServerHalf
from simulations.baselines.heads import parsed
from simulations.baselines.loop import rounds
from simulations.baselines.online import initial_teacher, learn, student_of
from simulations.host import data_in
from simulations.progress import RunProgress
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import Shelf, kept_shelf
from simulations.stream_device import prequential


def nearest_devices(seed: int, devices: int, count: int) -> list[list[int]]:
    """Return the nearest devices of each, the nearest first: places are drawn in a unit square.

    Args:
        seed: run seed.
        devices: how many there are.
        count: k; all others where there are no more.
    """
    places = np.stack([stream(seed, "place", device).random(2) for device in range(devices)])
    found = []
    for device in range(devices):
        order = np.argsort(((places - places[device]) ** 2).sum(axis=1), kind="stable")
        found.append([int(other) for other in order if other != device][:count])
    return found


def asked(scenario: Scenario, round_number: int, proxy_size: int) -> Ints:
    """Return the proxy samples that a round's packets are about."""
    wire = scenario.exchange
    return draw(scenario.seed, round_number, proxy_size, wire.per_round, independent=wire.draw == "independent")


class Relay(ServerHalf[bytes]):
    """Carries packets between neighbours; of its own it gives each device the teacher's labels, once.

    Args:
        scenario: the run.
        shelf: its data.
    """

    def __init__(self, scenario: Scenario, shelf: Shelf) -> None:
        self._scenario, self._shelf = scenario, shelf
        self._context = shelf.context(scenario.seed, load_task(scenario.task).classes)
        self._nearest = nearest_devices(scenario.seed, scenario.devices, scenario.method.neighbours)
        self._packets: dict[int, bytes] = {}
        self._start = b""
        self._served: set[int] = set()
        self.models = {}

    def ids(self, round_number: int) -> Ints:
        """Return the round's draw."""
        return asked(self._scenario, round_number, len(self._shelf.proxy))

    def request(self, device: int, round_number: int) -> bytes:
        """Return the packets that the device's neighbours sent in the last round."""
        scenario = self._scenario
        message = pb.Neighbours(version=CONTRACT_VERSION, run=scenario.seed, round=round_number, rounds=scenario.rounds)
        message.labels.extend(self._packets[other] for other in self._nearest[device] if other in self._packets)
        if device not in self._served:
            self._start = self._start or self._teachers_labels()
            message.start = self._start
        return message.SerializeToString(deterministic=True)

    def accept(self, device: int, round_number: int, content: bytes) -> bytes:
        """Check a device's packet, which stays as it is."""
        packet.decode(self._context, content, round_number=round_number, ids=self.ids(round_number))
        return content

    def refused(self, device: int, held_version: int) -> None:
        """Send the teacher's labels again: the device has lost its disk."""
        self._served.discard(device)

    def conclude(self, round_number: int, answers: Mapping[int, bytes]) -> None:
        """Keep the packets for the next round."""
        self._packets = dict(answers)
        self._served |= set(answers)

    def stored(self) -> dict[str, Any]:
        """Return the packets, the teacher's labels, and who holds them."""
        packets = {str(device): _tensor(content) for device, content in self._packets.items()}
        return {"packets": packets, "start": _tensor(self._start), "served": sorted(self._served)}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take them back."""
        self._packets = {int(device): content.numpy().tobytes() for device, content in stored["packets"].items()}
        self._start, self._served = stored["start"].numpy().tobytes(), set(stored["served"])

    def _teachers_labels(self) -> bytes:
        scenario, proxy = self._scenario, self._shelf.proxy
        assert scenario.teacher is not None
        task = load_task(scenario.task)
        state = initial_teacher(scenario, self._shelf)
        labels = predict(restored(architecture(scenario.teacher.architecture), task, state), proxy, task)
        everything = np.arange(len(proxy), dtype=np.int64)
        return _packed(self._context, scenario, soft_labels(everything, labels), 1)


def run(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run label-cache transfer: what stands for the air between devices."""
    return rounds(grid, Relay(setup.scenario, shelf), setup, shelf, progress)


def copied(cache: LabelCache, received: Sequence[SoftLabels], version: int) -> LabelCache:
    """Return a cache after copying: each sample that neighbours tell about has the mean of what they tell.

    Args:
        cache: before.
        received: the neighbours' labels.
        version: the round.
    """
    sums, counts = np.zeros(cache.labels.shape), np.zeros(len(cache.labels), dtype=np.int64)
    for labels in received:
        told = labels.ids[labels.present]
        sums[told] += labels.probabilities[labels.present]
        counts[told] += 1
    ids = np.flatnonzero(counts).astype(np.int64)
    return cache.filled(ids, (sums[ids] / counts[ids, None]).astype(np.float32), version)


def served(cache: LabelCache, ids: Ints, own: Floats, count: int) -> Floats:
    """Return what a device serves about samples: its prediction, with k times what its cache holds of them.

    Args:
        cache: of the device.
        ids: samples `[samples]`.
        own: p_i, its student's prediction about them `[samples, classes]`.
        count: k.
    """
    known = (cache.changed[ids] > 0)[:, None]
    mixed: Floats = np.where(known, (own + count * cache.labels[ids]) / (count + 1), own).astype(np.float32)
    return mixed


def answer(setup: Setup, number: int, request: bytes) -> DeviceAnswer:
    """Copy, digest, revisit, and serve the round's draw: the device's half."""
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    task = load_task(scenario.task)
    context, count = shelf.context(scenario.seed, task.classes), scenario.method.neighbours
    try:
        message = parsed(pb.Neighbours(), scenario.seed, request, (count + 2) * context.max_bytes)
        if len(message.labels) > count:
            raise PacketError(f"{len(message.labels)} packets, {count} at most are wanted")
        start = packet.decode(context, message.start).labels if message.start else None
        before = message.round - 1
        received = [packet.decode(context, content, round_number=before).labels for content in message.labels]
    except PacketError as error:
        return DeviceAnswer(b"", {}, str(error))
    disk = Disk(setup.device_states / f"device-{number:05d}", durable=False)
    stored = disk.load(message.round, lambda state: state)
    if stored is not None and stored.round_number == message.round:
        return stored.answer
    if stored is None and start is None:
        return DeviceAnswer(b"", {}, "the teacher's labels are not here yet")
    cache = LabelCache.empty(*_shape(context)) if stored is None else load_cache(stored.more)
    if start is not None:
        cache = copied(cache, [start], 1)
    cache = copied(cache, received, message.round)
    student = student_of(scenario, number, stored)
    data, found = data_in(scenario, shelf, number, message.round)
    scored = prequential(student, found, task)
    ids, done = asked(scenario, message.round, len(shelf.proxy)), []
    known = np.setdiff1d(cache.known, ids)  # who had just learned a label would only repeat it
    if len(known) and (stored is None or scenario.device.digest is not None):
        how = scenario.device.first_digest if stored is None else scenario.device.digest
        assert how is not None
        images = np.array(shelf.proxy[known])
        done.append(learn(scenario, number, message.round, student, "digest", images, cache.labels[known], how))
    seed = torch_seed(scenario.seed, "revisit", number, message.round)
    revisit(student, data, task, scenario.device, seed)
    done.append(scenario.device.revisit.of(len(data.labels)))
    labels = served(cache, ids, predict(student, shelf.proxy[ids], task), count)
    cache = cache.filled(ids, labels, message.round)
    content = _packed(context, scenario, soft_labels(ids, labels), message.round, scenario.class_of(number))
    scores = evaluate(student, data, task, message.round == message.rounds)
    reply = DeviceAnswer(content, {**scores, **scored, **work_of(done)})
    disk.save(Stored(message.round, state_of(student), reply, store_cache(cache)))
    return reply


def _shape(context: Context) -> tuple[int, int]:
    return context.proxy_size, context.classes


def _packed(
    context: Context, scenario: Scenario, labels: SoftLabels, round_number: int, device_class: str = ""
) -> bytes:
    own = scenario.device_classes[device_class].uplink if device_class else ""
    made = packet.encode(
        context,
        labels,
        round_number=round_number,
        samples_round=round_number,
        encoding=own or scenario.exchange.uplink,
        entropy_coded=scenario.exchange.entropy_coding,
    )
    return made.SerializeToString(deterministic=True)


def _tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)
