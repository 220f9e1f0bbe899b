"""How requests and answers of a host's devices lie in Flower messages.

A request names for each device one of the packets that the message carries, so that devices behind one host share the
bytes of an equal packet. Nothing but packets, device metrics and reasons of refusal travels: no array records at all.
Methods that send weights by nature keep theirs in a record of their own, so that no weight passes as a soft label; a
host answers in the record that it was asked in.
"""

import re
from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedstill.failures import plain
from fedstill.rounds import PREQUENTIAL, DeviceAnswer

TRAIN = "train.distill"
QUERY = "query.devices"
PACKETS, WEIGHTS = "packets", "weights"
NUMBER = r"0|[1-9][0-9]{0,9}"
CLASS = r"[^\x00-\x1f\x7f]{1,64}"
SHARES = frozenset({"accuracy", PREQUENTIAL})
MAX_METRIC = 1e15
"""What a device measures of itself is one of these shares or a count: anything else, such as NaN, is left out."""


def pack_requests(requests: Mapping[int, bytes], record: str = PACKETS) -> RecordDict:
    """Return the content of a message to a host: its devices' requests, equal ones once."""
    index: dict[bytes, int] = {}
    named = {str(device): index.setdefault(request, len(index)) for device, request in requests.items()}
    packets = {str(place): request for request, place in index.items()}
    return RecordDict({"devices": ConfigRecord({**named}), record: ConfigRecord({**packets})})


def record_of(content: RecordDict) -> str:
    """Return the name of the record that a message's packets lie in."""
    return WEIGHTS if WEIGHTS in content.config_records else PACKETS


def unpack_requests(content: RecordDict) -> dict[int, bytes]:
    """Return the requests of a message by device.

    Raises:
        ValueError: the content is not of the form that `pack_requests` makes.
    """
    try:
        packets = content.config_records[record_of(content)]
        devices = content.config_records["devices"]
        requests = {int(device): packets[str(place)] for device, place in devices.items()}
    except KeyError as error:
        raise ValueError(f"message has no {error}") from error
    if not all(isinstance(request, bytes) for request in requests.values()):
        raise ValueError("a request is not bytes")
    return {device: bytes(request) for device, request in requests.items() if isinstance(request, bytes)}


def packet_bytes(content: RecordDict) -> int:
    """Return how many bytes of packets a message's content really carries."""
    packets = content.config_records.get(record_of(content), ConfigRecord())
    return sum(len(packet) for packet in packets.values() if isinstance(packet, bytes))


def pack_answers(answers: Mapping[int, DeviceAnswer], record: str = PACKETS) -> RecordDict:
    """Return the content of a host's reply."""
    absent = {str(device): answer.absence for device, answer in answers.items() if answer.absence}
    answers = {device: answer for device, answer in answers.items() if not answer.absence}
    packets = {str(device): answer.packet for device, answer in answers.items() if not answer.refusal}
    refusals = {str(device): answer.refusal for device, answer in answers.items() if answer.refusal}
    held = {str(device): answer.held_version for device, answer in answers.items() if answer.refusal}
    metrics = {
        f"{device}.{name}": float(value) for device, answer in answers.items() for name, value in answer.metrics.items()
    }
    return RecordDict(
        {
            record: ConfigRecord({**packets}),
            "refusals": ConfigRecord({**refusals}),
            "held": ConfigRecord({**held}),
            "metrics": MetricRecord({**metrics}),
            **({"absent": ConfigRecord({**absent})} if absent else {}),
        }
    )


def unpack_answers(content: RecordDict, record: str = PACKETS) -> dict[int, DeviceAnswer]:
    """Return the answers of a host's reply by device; what is malformed becomes a refusal.

    Args:
        content: of the reply.
        record: the record that its packets have to lie in.

    Raises:
        ValueError: the reply has not the form that `pack_answers` makes.
    """
    records = content.config_records
    answers: dict[int, DeviceAnswer] = {}
    metrics: dict[int, dict[str, float]] = {}
    for key, value in content.metric_records.get("metrics", MetricRecord()).items():
        device, _, name = key.partition(".")
        most = 1.0 if name in SHARES else MAX_METRIC
        if re.fullmatch(NUMBER, device) and isinstance(value, int | float) and 0 <= value <= most:
            metrics.setdefault(int(device), {})[name] = float(value)
    for device, packet in records.get(record, ConfigRecord()).items():
        if not isinstance(packet, bytes):
            raise ValueError(f"packet of device {device} is not bytes")
        number = _number(device)
        answers[number] = DeviceAnswer(packet, metrics.get(number, {}))
    held = records.get("held", ConfigRecord())
    for device, reason in records.get("refusals", ConfigRecord()).items():
        version = held.get(device, 0)
        answers[_number(device)] = DeviceAnswer(
            b"", {}, plain(str(reason)) or "refused", version if isinstance(version, int) else 0
        )
    for device, reason in records.get("absent", ConfigRecord()).items():
        answers[_number(device)] = DeviceAnswer(b"", {}, absence=plain(str(reason)) or "no reason")
    return answers


def _number(device: str) -> int:
    if not re.fullmatch(NUMBER, device):
        raise ValueError(f"{device[:20]!r} is no device's number")
    return int(device)


def devices_of(reply: Message) -> dict[int, str]:
    """Return the device classes by device that a host's reply to `QUERY` names; empty when it names none."""
    if reply.has_error():
        return {}
    named = reply.content.config_records.get("devices", ConfigRecord())
    return {
        int(device): str(name)
        for device, name in named.items()
        if re.fullmatch(NUMBER, device) and re.fullmatch(CLASS, str(name))
    }
