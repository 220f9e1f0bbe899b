"""The `fedstill` command: rooms register their subcommands as entry points, so none imports another's dependencies."""

import importlib.metadata
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click
import typer
from rich.console import Console

from fedstill.errors import FedstillError
from fedstill.resuming import hint

# No call leaves for hosts that the user did not name: Flower and Ray would ask theirs otherwise.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
GROUP = "fedstill.commands"
EXTRAS = {"client": "edge", "server": "server", "simulations": "sim", "deploy": "lab"}
"""What a room's commands need, by the room."""

app = typer.Typer(
    name="fedstill",
    help="Federated multi-device distillation for the edge: only soft labels travel.",
    no_args_is_help=True,
    suggest_commands=False,  # click does
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once on Ctrl-C: workers end with this process, and everything finished is on disk."""
    console = Console(stderr=True, soft_wrap=True)
    console.show_cursor(True)
    console.print(f"fedstill: stopped{hint()}", markup=False, highlight=False)
    sys.stdout.flush()
    os._exit(130)


def _refuse(text: str) -> NoReturn:
    """End with one line that says what is wrong."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"fedstill: {text}", markup=False)
    sys.exit(2)


def _load_rooms(named: list[str]) -> None:
    """Add the commands of the room that a command belongs to, or of all that are installed.

    So a device never needs what only the others' commands import.
    """
    entries = importlib.metadata.entry_points(group=GROUP)
    wanted = [entry for entry in entries if entry.name in named]
    for entry in {entry.value: entry for entry in wanted or entries}.values():  # a room may have several names
        try:
            entry.load()(app)
        except ModuleNotFoundError as error:
            if wanted:
                extra = EXTRAS.get(entry.value.split(".")[0], "sim")
                _refuse(
                    f"{entry.name} needs {error.name}, which is not installed: install Fedstill with the extra {extra}"
                )


def main() -> None:
    """Run the command; errors meant for people become one line and exit code 2."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job of a script
        signal.signal(signal.SIGINT, _stop)
    _load_rooms(sys.argv[1:2])
    try:
        # What a command ends with on purpose comes back as its result.
        code = app(prog_name="fedstill", standalone_mode=False)
    except FedstillError as error:
        _refuse(str(error))
    except BrokenPipeError:  # who read what this prints has seen enough, as with `| head`
        os._exit(1)
    except OSError as error:  # a folder of another user's, a full disk
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "fedstill"
        _refuse(f"{' '.join(error.format_message().split()).rstrip('.')}; see `{where} --help`")
    except click.Abort:
        sys.exit(130)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
