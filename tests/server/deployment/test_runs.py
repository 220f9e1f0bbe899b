from pathlib import Path

import pytest

from fedstill.errors import ConfigError, RunFolderError
from fedstill.files import write_json
from fedstill.rounds import Owner
from server.deployment import runs
from server.deployment.control import Run
from server.deployment.home import ServerHome
from server.deployment.runs import RECORD, Record, describe, read_record, reason_in


def test_a_record_comes_back_with_node_ids_of_64_bits(tmp_path: Path) -> None:
    record = Record("run-1", tmp_path / "keys", {0: Owner(2**64 - 1, "pi5"), 3: Owner(7, "mcu")}, tmp_path)
    write_json(tmp_path / RECORD, record.content())
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", [None, [], {}, {"run": "run-1", "keys": "k", "owners": []}])
def test_a_folder_without_a_record_is_no_run(content: object, tmp_path: Path) -> None:
    if content is not None:
        write_json(tmp_path / RECORD, content)
    with pytest.raises(RunFolderError, match="no run of this server here"):
        read_record(tmp_path)


def test_a_run_of_another_name_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / RECORD, Record("../run", tmp_path, {}, tmp_path).content())
    with pytest.raises(RunFolderError, match="no proper name"):
        read_record(tmp_path)


class Control:
    """Plays the control API: away at first, then up with a run that has ended."""

    def __init__(self) -> None:
        self.asked = 0

    def runs(self) -> list[Run]:
        self.asked += 1
        if self.asked == 1:
            raise ConfigError("no answer from the SuperLink")
        return [Run(5, "finished:failed")]

    def log(self, run_id: int) -> str:
        return "round 1\nOSError: [Errno 28] No space left on device\n"


def test_a_superlink_that_is_away_does_not_end_the_waiting_for_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, said = Control(), list[str]()
    for name, value in (("Control", lambda home: control), ("STATUS_EVERY", 0.0), ("POLL", 0.01)):
        monkeypatch.setattr(runs, name, value)
    with pytest.raises(ConfigError, match=r"run 5 ended \(finished:failed\) after 0 rounds: OSError: .* No space left"):
        runs.Runs(ServerHome(tmp_path), tmp_path).follow(tmp_path, 5, said.append)
    assert said == ["waiting: no answer from the SuperLink"]


def test_a_run_that_paused_itself_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "Control", lambda home: Control())
    (tmp_path / runs.PAUSED).touch()
    said = list[str]()
    assert not runs.Runs(ServerHome(tmp_path), tmp_path).follow(tmp_path, 5, said.append)
    assert said == [f"paused after 0 rounds; continue with `fedstill server run --resume {tmp_path}`"]


def test_a_server_that_drains_begins_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, said, found = Control(), list[str](), runs.Runs(ServerHome(tmp_path), tmp_path)
    for name, value in (("Control", lambda home: control), ("SOON", 0.01)):
        monkeypatch.setattr(runs, name, value)
    found.close()
    found.wait_until_idle(said.append)
    assert said == ["waiting: no answer from the SuperLink (no run begins meanwhile)"]
    with pytest.raises(ConfigError, match="the server drains"):
        found.check_open()
    found.open()
    found.check_open()


def test_a_finished_round_is_told_in_a_line() -> None:
    row = {"round": 2, "answers": 3, "refused": {"1": "no answer"}, "released_accuracy": {"pi4": 0.5}}
    assert describe(row) == "round 2: 3 answers, 1 not used; students pi4 0.500"
    resting = {"1": "no answer", "4": "absent: too hot", "7": "absent: in use"}
    assert describe({**row, "refused": resting}) == "round 2: 3 answers, 1 not used, 2 absent; students pi4 0.500"


def test_why_a_run_ended_is_the_last_exception_in_its_log() -> None:
    log = "round 1\nValueError: first\n\nfedstill.errors.QuorumError: no answers\nflwr [ERROR] - Exit Code: 201\n"
    assert reason_in(log) == "fedstill.errors.QuorumError: no answers"
    assert reason_in("round 1\n") == ""
