"""The contract of flwr 1.41.0 that the adapter rests on: a new release that breaks it fails here first."""

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedstill.flower.adapter import LOST, SERVER_NODE_ID, deserialize, empty_run, identify_server, serialize, stamp


def message() -> Message:
    identify_server(run_id=77)
    return Message(RecordDict({"packets": ConfigRecord({"0": b"\0\1\2"})}), 5, "train.distill", group_id="1")


def test_messages_can_be_made_once_the_server_is_identified() -> None:
    made = message()
    assert made.metadata.run_id == 77
    assert made.metadata.src_node_id == SERVER_NODE_ID
    assert TaskIdentity.run_id == 77


def test_a_stamped_message_keeps_its_id_and_its_reply_refers_to_it() -> None:
    made = message()
    message_id = stamp(made)
    assert made.metadata.message_id == message_id
    assert Message(RecordDict(), reply_to=made).metadata.reply_to_message_id == message_id


def test_a_message_survives_serialization_byte_for_byte() -> None:
    made = message()
    stamp(made)
    again = deserialize(serialize(made))
    assert again.content.config_records["packets"]["0"] == b"\0\1\2"
    assert again.metadata.message_id == made.metadata.message_id
    assert serialize(again) == serialize(made)


def test_an_empty_run_has_its_id() -> None:
    assert empty_run(9).run_id == 9


def test_codes_of_what_gets_lost_on_its_way() -> None:
    assert {3, 4, 5, 8} == LOST
