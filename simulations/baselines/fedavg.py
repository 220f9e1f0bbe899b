"""FedAvg: devices train the server's model on their own data, the server averages what they send back.

McMahan, Moore, Ramage, Hampson and Aguera y Arcas 2017, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", arXiv 1602.05629, algorithm 1. All devices hold one architecture. n_k: samples of device k; E, B
and eta: `epochs`, `batch` and `learning_rate` of `device.revisit` (with `epochs = 0`, exactly `min_steps` steps).
"""

from collections.abc import Mapping

from flwr.serverapp import Grid

from client.device import revisit
from client.learner import work_of
from fedstill.errors import PacketError
from fedstill.learning import State, build, state_of
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.rounds import DeviceAnswer
from fedstill.tasks import load_task
from server import students
from simulations.baselines.evaluation import evaluate
from simulations.baselines.half import Outcome, ServerHalf
from simulations.baselines.loop import rounds
from simulations.baselines.weights import Weights, average, decode, encode
from simulations.host import data_in
from simulations.progress import RunProgress
from simulations.scenario import Scenario
from simulations.setup import Setup
from simulations.shelf import Shelf, kept_shelf
from simulations.stream_device import prequential


class FedAvg(ServerHalf[Weights]):
    """w_(t+1) = sum_k n_k / n * w_k, by architecture.

    Args:
        scenario: the run; w_0 of an architecture is that of a fresh class student.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._student_of = [scenario.device_classes[name].student for name in scenario.classes_of_devices()]
        self._encoded: dict[tuple[str, int], bytes] = {}
        self.models = {
            name: students.initial(scenario.task, name, scenario.seed) for name in dict.fromkeys(self._student_of)
        }

    def request(self, device: int, round_number: int) -> bytes:
        """Return w_t of the device's architecture."""
        key = self._student_of[device], round_number
        if key not in self._encoded:
            self._encoded = {found: content for found, content in self._encoded.items() if found[1] == round_number}
            weights = Weights(self.models[key[0]], 0, round_number, self._scenario.rounds)
            self._encoded[key] = encode(self._scenario.seed, weights)
        return self._encoded[key]

    def accept(self, device: int, round_number: int, content: bytes) -> Weights:
        """Decode w_k and n_k of a device."""
        like = self.models[self._student_of[device]]
        weights = decode(self._scenario.seed, like, content, round_number)
        if weights.samples < 1:
            raise PacketError("weights trained on no sample")
        return weights

    def conclude(self, round_number: int, answers: Mapping[int, Weights]) -> None:
        """Average by architecture; one that nobody answered for stays as it is."""
        for name in self.models:
            received = [weights for device, weights in answers.items() if self._student_of[device] == name]
            if received:
                self.models[name] = average(received)


def run(grid: Grid, setup: Setup, shelf: Shelf, progress: RunProgress) -> Outcome:
    """Run FedAvg: the server's half."""
    return rounds(grid, FedAvg(setup.scenario), setup, shelf, progress)


def answer(setup: Setup, number: int, request: bytes) -> DeviceAnswer:
    """Train the model of a request on a device's private data and send it back: the device's half.

    A device keeps nothing between rounds: the same request gets the same answer.
    """
    scenario, shelf = setup.scenario, kept_shelf(setup.assets)
    task = load_task(scenario.task)
    student = scenario.device_classes[scenario.class_of(number)].student
    model = build(architecture(student), task, seed=0)
    try:
        received = decode(scenario.seed, state_of(model), request)
    except PacketError as error:
        return DeviceAnswer(b"", {}, str(error))
    model.load_state_dict(received.state)
    data, found = data_in(scenario, shelf, number, received.round_number)
    before = prequential(model, found, task)
    seed = torch_seed(scenario.seed, "revisit", number, received.round_number)
    revisit(model, data, task, scenario.device, seed)
    state: State = state_of(model)
    trained = Weights(state, len(data.labels), received.round_number, received.rounds)
    scores = evaluate(model, data, task, received.round_number == received.rounds)
    work = work_of([scenario.device.revisit.of(len(data.labels))])
    return DeviceAnswer(encode(scenario.seed, trained), {**scores, **before, **work})
