import subprocess
import sys
from pathlib import Path

import pytest

from fedstill.errors import RunFolderError
from simulations.run_folder import CONFIG, SEEDS_PLAN, Claim, check_new, check_resumable, commit


def test_a_folder_is_claimed_by_one_process_at_a_time_and_freed_by_its_end(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from simulations.run_folder import Claim; "
        f"claim = Claim(Path({str(tmp_path)!r})); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match="another run"):
            Claim(tmp_path)
        other.kill()
        other.wait()
    with Claim(tmp_path):
        pass


@pytest.mark.parametrize("begun", [CONFIG, SEEDS_PLAN])
def test_a_folder_with_a_run_or_several_is_refused_with_the_way_to_continue(begun: str, tmp_path: Path) -> None:
    (tmp_path / begun).write_text("")
    with pytest.raises(RunFolderError, match="--resume"):
        check_new(tmp_path)


def test_a_run_is_resumed_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("")
    assert check_resumable(tmp_path) == tmp_path / CONFIG


def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    check_new(tmp_path)
    check_new(tmp_path / "new")
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="already in use; choose another"):
        check_new(tmp_path)
    with pytest.raises(RunFolderError, match="no run to resume"):
        check_resumable(tmp_path)


def test_the_commit_is_that_of_the_checkout() -> None:
    found = commit()
    root = Path(__file__).parents[2]
    expected = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if expected.returncode == 0:
        assert found is not None
        assert found.startswith(expected.stdout.strip())


def test_a_folder_with_nothing_but_what_a_run_leaves_that_was_killed_before_it_began_is_new(tmp_path: Path) -> None:
    with Claim(tmp_path):
        pass
    (tmp_path / ".config.toml.123.tmp").write_text("half")
    check_new(tmp_path)
