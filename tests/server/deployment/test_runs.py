from pathlib import Path

import pytest

from fedstill.errors import RunFolderError
from fedstill.files import write_json
from server.deployment.runs import RECORD, Record, describe, read_record


def test_a_record_comes_back_with_node_ids_of_64_bits(tmp_path: Path) -> None:
    record = Record("run-1", tmp_path / "keys", {0: 2**64 - 1, 3: 7})
    write_json(tmp_path / RECORD, record.content())
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", [None, [], {}, {"run": "run-1", "keys": "k", "owners": []}])
def test_a_folder_without_a_record_is_no_run(content: object, tmp_path: Path) -> None:
    if content is not None:
        write_json(tmp_path / RECORD, content)
    with pytest.raises(RunFolderError, match="no run of this server here"):
        read_record(tmp_path)


def test_a_run_of_another_name_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / RECORD, Record("../run", tmp_path, {}).content())
    with pytest.raises(RunFolderError, match="no proper name"):
        read_record(tmp_path)


def test_a_finished_round_is_told_in_a_line() -> None:
    row = {"round": 2, "answers": 3, "refused": {"1": "no answer"}, "released_accuracy": {"pi4": 0.5}}
    assert describe(row) == "round 2: 3 answers, 1 not used; students pi4 0.500"
