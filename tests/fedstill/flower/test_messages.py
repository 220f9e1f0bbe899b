import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedstill.flower.adapter import identify_server, stamp
from fedstill.flower.messages import (
    PACKETS,
    QUERY,
    WEIGHTS,
    devices_of,
    pack_answers,
    pack_requests,
    packet_bytes,
    record_of,
    unpack_answers,
    unpack_requests,
)
from fedstill.rounds import DeviceAnswer


def test_requests_survive_packing_and_equal_ones_travel_once() -> None:
    requests = {0: b"same", 3: b"same", 7: b"other"}
    content = pack_requests(requests)
    assert unpack_requests(content) == requests
    assert packet_bytes(content) == len(b"same") + len(b"other")


def test_answers_survive_packing_with_metrics_and_refusals() -> None:
    answers = {
        4: DeviceAnswer(b"packet", {"accuracy": 0.5}),
        9: DeviceAnswer(b"", {}, "stale cache", held_version=3),
    }
    assert unpack_answers(pack_answers(answers)) == answers


def test_what_a_host_says_about_a_device_can_forge_no_line_of_a_log_and_drive_no_terminal() -> None:
    said = "bad\n2026-01-01 INFO round 1\r\x1b[31mX"
    found = unpack_answers(pack_answers({4: DeviceAnswer(b"", {}, said), 9: DeviceAnswer(b"", {}, absence=said)}))
    assert found[4].refusal == found[9].absence == "bad 2026-01-01 INFO round 1  [31mX"


def test_weights_lie_in_a_record_of_their_own_which_a_reader_of_packets_does_not_open() -> None:
    requests, answers = {0: b"model"}, {0: DeviceAnswer(b"model", {})}
    content = pack_requests(requests, WEIGHTS)
    assert (record_of(content), record_of(pack_requests(requests))) == (WEIGHTS, PACKETS)
    assert PACKETS not in content
    assert unpack_requests(content) == requests
    assert packet_bytes(content) == len(b"model")
    reply = pack_answers(answers, WEIGHTS)
    assert unpack_answers(reply, WEIGHTS) == answers
    assert unpack_answers(reply) == {}


def test_no_message_of_ours_has_an_array_record() -> None:
    for content in (pack_requests({0: b"x"}), pack_answers({0: DeviceAnswer(b"x", {"accuracy": 1.0})})):
        assert not content.array_records


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"devices": ConfigRecord({"0": 1}), "packets": ConfigRecord({"0": b""})}),
        RecordDict({"devices": ConfigRecord({"0": 0}), "packets": ConfigRecord({"0": "text"})}),
        RecordDict({"devices": ArrayRecord(), "packets": ConfigRecord()}),
    ],
)
def test_a_malformed_request_message_is_refused(content: RecordDict) -> None:
    with pytest.raises(ValueError, match=r"message has no|not bytes"):
        unpack_requests(content)


def test_a_packet_that_is_not_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="not bytes"):
        unpack_answers(RecordDict({"packets": ConfigRecord({"1": "text"})}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_metric_that_is_no_share_and_no_count_is_left_out(value: float) -> None:
    content = pack_answers({4: DeviceAnswer(b"packet", {"accuracy": 0.5})})
    content["metrics"] = MetricRecord({"4.accuracy": 0.5, "4.steps": value, "\u00b2.steps": 1.0})
    assert unpack_answers(content) == {4: DeviceAnswer(b"packet", {"accuracy": 0.5})}


def test_a_share_above_one_is_left_out() -> None:
    answers = {1: DeviceAnswer(b"packet", {"accuracy": 9e14, "steps": 9e14})}
    assert unpack_answers(pack_answers(answers))[1].metrics == {"steps": 9e14}


@pytest.mark.parametrize("name", ["1_0", " 7 ", "-1", "x"])
@pytest.mark.parametrize("record", ["packets", "refusals", "absent"])
def test_an_answer_of_what_is_no_devices_number_is_refused(record: str, name: str) -> None:
    content = pack_answers({})
    content[record] = ConfigRecord({name: b"packet" if record == "packets" else "reason"})
    with pytest.raises(ValueError, match="no device's number"):
        unpack_answers(content)


@pytest.mark.parametrize("name", ["", "-1", "x", "\u00b2", "9" * 5000])
def test_a_device_without_a_number_is_passed_over(name: str) -> None:
    identify_server(1)
    asked = Message(RecordDict(), 2, QUERY)
    stamp(asked)
    reply = Message(RecordDict({"devices": ConfigRecord({"7": "pi4", name: "pi5"})}), reply_to=asked)
    assert devices_of(reply) == {7: "pi4"}


@pytest.mark.parametrize("name", ["", "x" * 65, "pi4\n", "a\x00b", 7])
def test_a_class_that_is_no_name_is_not_taken(name: object) -> None:
    said = ConfigRecord({"0": name, "1": "pi4", "02": "pi4"})  # type: ignore[dict-item]
    identify_server(1)
    asked = Message(RecordDict(), 2, QUERY)
    stamp(asked)
    reply = Message(RecordDict({"devices": said}), reply_to=asked)
    assert devices_of(reply) == ({0: "7", 1: "pi4"} if name == 7 else {1: "pi4"})
