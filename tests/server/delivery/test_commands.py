"""The commands about delivery, on the files of a service."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from fedstill.errors import ConfigError
from protos.delivery_pb2 import Outcome, Telemetry
from server.commands import register
from server.delivery.records import Records
from server.delivery.state import State
from server.delivery.summary import read
from server.delivery.telemetry import check

Release = Callable[..., int]
app = typer.Typer()
register(app)


@app.callback()
def _root() -> None:
    pass


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def call(command: str, *arguments: str | Path) -> Result:
        options = ("--state", tmp_path / "state")
        return CliRunner().invoke(app, ["server", command, *map(str, (*arguments, *options))])

    return call


@pytest.fixture
def service(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.begin(str(tmp_path / "store"))
    return state


def refusal(result: Result) -> str:
    """Return what the command line prints as one line before it ends with exit code 2."""
    assert isinstance(result.exception, ConfigError)
    return str(result.exception)


def tell(state: State, device: str, **fields: object) -> None:
    records = Records(state.telemetry)
    known = {"device_class": "pi5", "sequence": 1, "version": 1, "outcome": Outcome.OUTCOME_RUNNING, **fields}
    records.add(check(Telemetry(device_id=device, **known)), "digits", "tiny", 1.0)  # type: ignore[arg-type]
    records.close()


def test_a_rollout_from_its_first_percent_to_its_withdrawal(
    release: Release, service: State, run: Callable[..., Result]
) -> None:
    release()
    assert run("rollout", "pi5").output == ("pi5: never staged; all devices get the newest release: version 1\n")
    assert service.rollout("pi5") is None
    assert run("rollout", "pi5", "--promote").output == "pi5: all devices get version 1\n"
    release()
    assert run("rollout", "pi5").output.endswith("waits to be staged: version 2\n")
    run("rollout", "pi5", "--group", "canary", "--devices", "a, b", "--threshold", "0.4")
    staged = run("rollout", "pi5", "--percent", "12.5").output
    assert "candidate: version 2, 12.5 % of the devices\n" in staged
    assert "group canary: 2 devices, pauses above 40 % of failures\n" in staged
    assert "paused: by command" in run("rollout", "pi5", "--pause").output
    assert "paused" not in run("rollout", "pi5", "--resume").output
    assert "all devices get version 2\n" in run("rollout", "pi5", "--promote").output
    withdrawn = run("rollout", "pi5", "--withdraw").output
    assert "all devices get version 1\n" in withdrawn
    assert "withdrawn: version 2\n" in withdrawn
    found = service.rollout("pi5")
    assert found is not None
    assert (found.current, found.withdrawn, found.groups["canary"].devices) == (1, (2,), ("a", "b"))
    early = run("rollout", "pi5", "--withdraw", "--version", "3")
    assert "no version 3 in the store yet" in str(early.exception)
    assert service.rollout("pi5") == found


def test_wrong_use_is_one_clear_line_and_changes_nothing(
    release: Release, service: State, run: Callable[..., Result], tmp_path: Path
) -> None:
    release()
    assert refusal(run("rollout", "pi5", "--pause", "--resume")) == "--pause and --resume: one at a time"
    assert "no rollout is going on" in refusal(run("rollout", "pi5", "--pause"))
    assert "no version 7 in the store" in refusal(run("rollout", "pi5", "--percent", "5", "--version", "7"))
    assert "no version 0 in the store" in refusal(run("rollout", "pi4", "--percent", "5"))
    assert "no device class" in refusal(run("rollout", "../pi5", "--percent", "5"))
    assert run("rollout", "pi5", "--percent", "101").exit_code == 2
    assert not list((tmp_path / "state" / "rollouts").iterdir())
    assert "give --cert and --key, or --insecure" in refusal(run("deliver", tmp_path / "store"))
    assert "only this machine" in refusal(run("deliver", tmp_path / "store", "--insecure", "--address", "0.0.0.0:0"))


@pytest.mark.parametrize("command", [("rollout", "pi5"), ("telemetry",)])
def test_a_state_of_no_service_is_one_clear_line(command: tuple[str, ...], run: Callable[..., Result]) -> None:
    assert "no delivery service was started with this --state" in refusal(run(*command))


def test_telemetry_shows_a_slow_and_a_drifting_class_and_writes_what_a_run_takes(
    service: State, run: Callable[..., Result], tmp_path: Path
) -> None:
    assert run("telemetry").output == "no device told anything yet\n"
    tell(service, "a", latency_p50_ms=25.0, drift=0.4, predictions=1000)
    tell(service, "b", device_class="pi4", latency_p50_ms=25.0, outcome=Outcome.OUTCOME_REFUSED)
    lines = [line.strip() for line in run("telemetry").output.splitlines()]
    (pi5,) = [line for line in lines if line.startswith("pi5")]
    (pi4,) = [line for line in lines if line.startswith("pi4")]
    assert pi5.split()[:6] == ["pi5", "1", "1", "0", "25.00", "/"]
    assert " ".join(pi5.split()).endswith("25.00 / 20 — 0.40 slow, drifting")
    assert (pi4.split()[3], "slow" in pi4) == ("1", False)
    run("telemetry", "pi5", "--out", tmp_path / "telemetry.json")
    assert [found.device_class for found in read(tmp_path / "telemetry.json").found] == ["pi5"]
    assert "telemetry.json" in refusal(run("telemetry", "--out", tmp_path / "telemetry.json" / "below"))


def test_the_commands_load_without_what_only_the_service_needs() -> None:
    code = (
        "import sys, server.commands;"
        "print([name for name in ('torch', 'grpc', 'fsspec', 'flwr', 'prometheus_client') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
