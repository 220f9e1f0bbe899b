"""A plain Flower app that exchanges soft labels: one node per device, its weights in the node's state."""

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from benchmarks.rivals.flower_ray.data import images
from benchmarks.rivals.flower_ray.work import STUDENTS, learn, probabilities

PROXY_SEED = 2**20


@lru_cache(maxsize=1)  # an actor loads it once: making the data is no part of the work
def public(rows: int) -> NDArray[np.uint8]:
    """Return the public images."""
    return images(rows, PROXY_SEED)[0]


def client_app(student: str, samples: int, rows: int, device: str = "cpu") -> ClientApp:
    """Return the app of a node that computes on the torch device `device`."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        number = int(context.node_config["partition-id"])
        torch.manual_seed(number)
        model = STUDENTS[student]().to(device)
        if "weights" in context.state:
            kept = context.state.array_records["weights"].to_torch_state_dict()
            model.load_state_dict(OrderedDict(kept))
        learn(model, *images(samples, number), seed=number, device=device)
        labels = probabilities(model, public(rows), device)
        context.state["weights"] = ArrayRecord(model.cpu().state_dict())
        return Message(RecordDict({"labels": ArrayRecord({"rows": Array(labels)})}), reply_to=message)

    return app


def server_app(devices: int, rounds: int) -> ServerApp:
    """Return the app that averages the soft labels and sends the mean back; it prints a line after each round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        consensus = ArrayRecord()
        nodes: list[int] = []
        while len(nodes) < devices:
            nodes = list(grid.get_node_ids())
        for number in range(1, rounds + 1):
            content = RecordDict({"consensus": consensus})
            messages = [Message(content, node, "train") for node in nodes]
            replies = [reply for reply in grid.send_and_receive(messages) if not reply.has_error()]
            if len(replies) < devices:
                raise RuntimeError(f"round {number}: {len(replies)} of {devices} devices answered")
            votes = [reply.content.array_records["labels"]["rows"].numpy().astype(np.float32) for reply in replies]
            consensus = ArrayRecord({"rows": Array(np.mean(votes, axis=0))})
            print(f"round {number}", flush=True)

    return app
