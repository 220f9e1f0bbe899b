"""How a baseline's device measures itself: as the product's devices do."""

from torch import nn

from client.learner import ROUND_TEST_SAMPLES, DeviceData
from fedstill.learning import accuracy
from fedstill.tasks import Task


def evaluate(model: nn.Module, data: DeviceData, task: Task, last: bool) -> dict[str, float]:
    """Return the accuracy on a fixed part of the test samples, on all of them in the last round."""
    count = len(data.test_labels) if last else ROUND_TEST_SAMPLES
    images, labels = data.test_images[:count], data.test_labels[:count]
    return {"accuracy": accuracy(model, images, labels, task)} if len(labels) else {}
