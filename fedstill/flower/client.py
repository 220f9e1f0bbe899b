"""The client's side: what a ClientApp needs to answer `FederatedDistillation`.

A host that carries many devices uses `describe` and `answer`. Someone whose node is one device, with a Flower app of
their own, uses `answer_alone`, which keeps the device's label cache in the node's `Context`.
"""

from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedstill import packet
from fedstill.cache import LabelCache
from fedstill.errors import PacketError, StaleCacheError
from fedstill.exchange import RoundTask, close_task, open_request
from fedstill.flower.messages import pack_answers, record_of, unpack_requests
from fedstill.rounds import DeviceAnswer
from fedstill.soft_labels import Floats, soft_labels

_CACHE, _ANSWER = "fedstill.cache", "fedstill.answer"


def describe(message: Message, devices: Mapping[int, str]) -> Message:
    """Answer a `query.devices` message with the classes of this host's devices."""
    record = ConfigRecord({str(device): name for device, name in devices.items()})
    return Message(RecordDict({"devices": record}), reply_to=message)


def answer(message: Message, work: Callable[[Mapping[int, bytes]], Mapping[int, DeviceAnswer]]) -> Message:
    """Answer a `train.distill` message for all devices of this host.

    Args:
        message: the request.
        work: takes the serialized requests by device, returns the answers by device.
    """
    answers = work(unpack_requests(message.content))
    return Message(pack_answers(answers, record_of(message.content)), reply_to=message)


def answer_alone(
    message: Message,
    context: Context,
    shared: packet.Context,
    learn: Callable[[RoundTask], Floats],
    *,
    encoding: str = "float16",
) -> Message:
    """Answer a `train.distill` message on a node that is one device; a round asked twice gets the answer that it got.

    Args:
        message: the request.
        context: the node's context; its state keeps the label cache between rounds, and the last answer.
        shared: what both sides of the run share.
        learn: digests the labels of `task.cache` about `task.usable`, revisits private data, and returns the class
            probabilities of the proxy samples `task.predict`, un-augmented and in eval mode `[samples, classes]`.
        encoding: encoding of the answer, a name of `fedstill.codecs`.
    """
    (device, request), *_ = unpack_requests(message.content).items()
    known = context.state.config_records.get(_ANSWER, ConfigRecord())
    if known.get("round") == packet.round_of(request) and known.get("run") == shared.seed:
        return Message(pack_answers({device: DeviceAnswer(bytes(known["packet"]), {})}), reply_to=message)  # type: ignore[arg-type]
    try:
        task = open_request(shared, _load_cache(context, shared), request)
    except StaleCacheError as error:
        refusal = DeviceAnswer(b"", {}, str(error), error.held)
        return Message(pack_answers({device: refusal}), reply_to=message)
    except PacketError as error:
        return Message(pack_answers({device: DeviceAnswer(b"", {}, str(error))}), reply_to=message)
    labels = soft_labels(task.predict, learn(task))
    _save_cache(context, task.cache)
    content = close_task(shared, task, labels, encoding)
    context.state[_ANSWER] = ConfigRecord({"run": shared.seed, "round": task.round_number, "packet": content})
    return Message(pack_answers({device: DeviceAnswer(content, {})}), reply_to=message)


def _load_cache(context: Context, shared: packet.Context) -> LabelCache:
    arrays = context.state.array_records.get(_CACHE)
    if arrays is None:
        return LabelCache.empty(shared.proxy_size, shared.classes)
    return LabelCache(arrays["labels"].numpy(), arrays["changed"].numpy(), int(arrays["version"].numpy()))


def _save_cache(context: Context, cache: LabelCache) -> None:
    context.state[_CACHE] = ArrayRecord(
        {
            "labels": Array(cache.labels),
            "changed": Array(cache.changed),
            "version": Array(np.array(cache.version)),
        }
    )
