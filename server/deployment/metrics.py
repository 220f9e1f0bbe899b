"""What fleet and runs are like, for Prometheus and whatever else reads OpenMetrics.

    python -m server.deployment.metrics HOME [PORT]

With PORT it is in a container of its own: it listens on all of that one's addresses, whatever server.toml says.

Labels are device classes that the operator gave, names of our programs, and classes of a scenario: no device adds one.
"""

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedstill.errors import ConfigError
from fedstill.processes import run_service, stopped_by_signals
from fedstill.rounds import absent
from server.delivery.logs import begin_log
from server.deployment.home import ServerConfig, ServerHome
from server.enrolment.registry import Registry

PROGRAMS = ("superlink", "superexec", "enrolment", "delivery")


class Fleet(Collector):
    """Reads the server's folder whenever somebody reads the metrics.

    Args:
        home: the server's folder.
    """

    def __init__(self, home: ServerHome) -> None:
        self._home = home

    def describe(self) -> list[Metric]:
        """Return nothing: what there is to tell is known when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return devices by class and state, programs, and how far the newest run is."""
        devices = GaugeMetricFamily("fedstill_fleet_devices", "Enrolled devices.", labels=("device_class", "state"))
        members = Registry(self._home / "fleet.db").members()
        states = Counter((one.device_class, "active" if one.revoked is None else "revoked") for one in members)
        for labels, count in sorted(states.items()):
            devices.add_metric(labels, count)
        yield devices
        if (self._home / "run").is_dir():  # where each has a container, the containers' engine knows
            up = GaugeMetricFamily("fedstill_program_up", "Whether a program runs.", labels=("program",))
            for program in PROGRAMS:
                up.add_metric((program,), float(_alive(self._home / "run" / f"{program}.pid")))
            yield up
        yield from self._run()

    def _run(self) -> Iterator[Metric]:
        folder = self._home.newest_run()
        rows = _rows(folder) if folder is not None else []
        if folder is None or not rows:
            return
        last = rows[-1]
        away = absent(last["refused"])
        figures = {
            "round": (last["round"], "Finished rounds of the newest run."),
            "answers": (last["answers"], "Usable answers of its last round."),
            "not_used": (len(last["refused"]) - away, "Devices of that round that did not answer or were refused."),
            "absent": (away, "Devices of that round whose owners had them rest."),
            "finished": (float((folder / "summary.json").exists()), "Whether the run is over."),
            "uplink_bytes": (last["uplink_bytes"], "Bytes of all packets so far, from devices."),
            "downlink_bytes": (last["downlink_bytes"], "Bytes of all packets so far, to devices."),
            "last_round_timestamp_seconds": ((folder / "rounds.jsonl").stat().st_mtime, "When its last round ended."),
        }
        for name, (value, text) in figures.items():
            yield GaugeMetricFamily(f"fedstill_run_{name}", text, value=float(value))
        accuracy = GaugeMetricFamily(
            "fedstill_run_student_accuracy", "On test samples, 0 to 1.", labels=("device_class",)
        )
        for kind, value in sorted(last["released_accuracy"].items()):
            accuracy.add_metric((kind,), value)
        yield accuracy


def _rows(folder: Path) -> list[dict[str, Any]]:
    with suppress(OSError, ValueError):
        return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return []


def _alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def address(config: ServerConfig, words: Sequence[str]) -> tuple[str, int]:
    """Return where the metrics are to be had: an address to listen on, and its port.

    Args:
        config: of the server.
        words: what the command line says after the folder.

    Raises:
        ConfigError: they are no port.
    """
    if not words:
        return config.metrics_listen, config.metrics_port
    if len(words) > 1 or not words[0].isdecimal() or not 0 < int(words[0]) < 65536:
        raise ConfigError(f"{' '.join(words)}: no port; give a number from 1 to 65535")
    return "0.0.0.0", int(words[0])


def run(folder: Path) -> None:
    """Answer on `/metrics` until SIGTERM or SIGINT.

    Raises:
        ConfigError: there is no server in the folder, or the command line names no port.
        OSError: the address can't be listened on.
    """
    home = ServerHome(folder)
    config = home.config()
    listen, port = address(config, sys.argv[2:])
    begin_log(as_json=config.json_logs)
    registry = CollectorRegistry()
    registry.register(Fleet(home))
    stop = stopped_by_signals()
    server, thread = start_http_server(port, listen, registry)
    logging.getLogger("fedstill").info("metrics on %s:%d", listen, port)
    stop.wait()
    server.shutdown()
    thread.join()


if __name__ == "__main__":
    sys.exit(run_service(run))
