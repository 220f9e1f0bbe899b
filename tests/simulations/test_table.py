import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulations.seeds import combine
from simulations.table import print_seeds, print_table


def device_class(**changes: Any) -> dict[str, Any]:
    return {
        "devices": 5,
        "student": "digit-separable-m",
        "parameters": 16794,
        "accuracy_local_only": 0.443,
        "accuracy_teacher_only": 0.902,
        "accuracy_devices": 0.91,
        "accuracy_released_fp32": 0.955,
        "accuracy_released": 0.951,
        "onnx_fp32_bytes": 68658,
        "onnx_bytes": 25841,
        "latency_ms_p50": 0.0157,
        "latency_fp32_ms_p50": 0.0127,
        "uplink_bytes_per_round": 4051.75,
        "downlink_bytes_per_round": 3554.125,
        "fedavg_bytes_per_round": 135888,
        "artifact": "students/pi5/student.onnx",
        **changes,
    }


def summary(seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "scenario": "digits",
        "seed": seed,
        "rounds": 8,
        "engine": "local",
        "commit": None,
        "teacher": {"accuracy_initial": 0.938, "accuracy_final": 0.947},
        "central": {"accuracy": 1.0},
        "wire": {
            "uplink_bytes": 648280,
            "downlink_bytes": 568660,
            "messages": 16,
            "envelope_bytes": 9915,
            "proxy_bytes": 514560,
        },
        "device_classes": {"pi5": device_class(**changes), "mcu": device_class()},
        "timing": {"wall_seconds": 40.5, "rounds_seconds": 25.4},
        "peak_rss_bytes": 812_000_000,
    }


def shown(content: dict[str, Any], width: int, colour: bool = False, out: Path = Path("runs/one")) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        _environ={},
    )
    (print_seeds if "seeds" in content else print_table)(content, console, out)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("width", [100, 110, 120])
def test_a_class_stands_on_one_line_with_every_figure_at_usual_widths(width: int) -> None:
    text = shown(summary(), width)
    assert max(map(len, text.splitlines())) <= width
    row = line_of(text, "pi5").split()
    assert row[1:] == [
        *("5", "digit-", "16.8k", "44.3", "90.2", "95.5", "95.1", "+4.9"),
        *("68.7→25.8", "0.013→0.016", "4.1", "3.6", "136", "18x"),
    ]


def test_a_narrow_terminal_gets_two_tables_without_folded_numbers() -> None:
    lines = [line.split() for line in shown(summary(), 80).splitlines() if line.startswith("pi5")]
    assert [row[-1] for row in lines] == ["+4.9", "18x"]


def test_gain_is_over_the_better_of_local_only_and_teacher_only() -> None:
    row = line_of(shown(summary(accuracy_local_only=0.94), 120), "pi5")
    assert "+1.1" in row.split()


@pytest.mark.parametrize(("released", "colour"), [(0.951, "32"), (0.80, "31")])
def test_a_positive_gain_is_green_and_another_red(released: float, colour: str) -> None:
    row = line_of(shown(summary(accuracy_released=released), 120, colour=True), "pi5")
    assert re.search(rf"\x1b\[{colour}m[+-]\d", row)


def test_null_prints_as_a_dash() -> None:
    row = line_of(shown(summary(accuracy_local_only=None, parameters=None), 120), "pi5").split()
    assert row[3:5] == ["—", "—"]
    assert "+4.9" in row


def test_below_the_table_stand_teacher_ceiling_gap_wire_time_memory_and_paths() -> None:
    text = shown(summary(), 120, out=Path("runs/[bold]one"))
    for expected in (
        "93.8 → 94.7 %",
        "100.0 %",
        "50.0 % of the way",
        "648.3 kB up, 568.7 kB down",
        "40.5 s",
        "812.0 MB",
    ):
        assert expected in text
    assert text.endswith("runs/[bold]one\nreport            runs/[bold]one/report.html\n")


def test_seeds_show_mean_and_standard_deviation_of_every_measured_number() -> None:
    both = combine([summary(0), summary(1, accuracy_released=0.931)])
    lines = shown(both, 120).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("pi5"))
    assert "94.1" in lines[place].split()
    assert "+3.9" in lines[place].split()
    assert lines[place + 1].split().count("±1.4") == 2
    assert "seeds 0, 1" in lines[0]


def test_what_devices_told_is_shown_with_a_slow_and_a_drifting_class() -> None:
    told = {"version": 3, "devices": 5, "latency_ms_p50": 21.0, "accuracy": 0.9, "drift": 0.31}
    flags = {"field_slow": True, "field_drifting": True}
    known: dict[str, Any] = {**{f"field_{key}": value for key, value in told.items()}, **flags}
    line = "pi5 in the field  5 devices run version 3: 21.0 ms, slow; drift 31.0 %, drifting; accuracy 90.0 %"
    assert line in shown(summary(**known), 120)
    assert line in shown(combine([summary(0, **known), summary(1, **known)]), 120)
    assert "in the field" not in shown(summary(), 120)


def test_a_refused_class_is_marked_and_its_reasons_are_told() -> None:
    reasons = ["flash 13 kB, allowed 12 kB", "latency 9.00 ms, allowed 8 ms"]
    text = shown(summary(refused=reasons), 120)
    assert re.search(r"^pi5 refused +5 ", text, re.MULTILINE)
    assert re.search(r"^mcu +5 ", text, re.MULTILINE)
    assert "pi5 refused       flash 13 kB, allowed 12 kB; latency 9.00 ms, allowed 8 ms" in text
    both = combine([summary(0, refused=reasons), summary(1, refused=[])])
    assert "pi5 refused" in shown(both, 120)
    assert both["derived"]["mean"]["refused"] == {"pi5": 0.5}  # the other class was not verified
