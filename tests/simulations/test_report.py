import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.release.checks import Check
from simulations.curves import series
from simulations.heatmaps import class_counts
from simulations.report import SHOWN_REFUSALS, write_report, write_seeds_report
from simulations.seeds import combine

NAMES = ("pi5", "mcu")
LABELS = ("zero", "one", "<two>")


def device_class(released: float) -> dict[str, Any]:
    return {
        "devices": 2,
        "student": "digit-conv-m",
        "parameters": 16794,
        "accuracy_local_only": 0.443,
        "accuracy_teacher_only": 0.902,
        "accuracy_devices": 0.91,
        "accuracy_released_fp32": 0.955,
        "accuracy_released": released,
        "onnx_fp32_bytes": 68658,
        "onnx_bytes": 25841,
        "latency_ms_p50": 0.0157,
        "latency_fp32_ms_p50": 0.0127,
        "uplink_bytes_per_round": 4051.75,
        "downlink_bytes_per_round": 3554.125,
        "fedavg_bytes_per_round": 135888,
        "artifact": "students/pi5/student.onnx",
    }


def summary(seed: int = 0, released: float = 0.951) -> dict[str, Any]:
    return {
        "scenario": "digits",
        "seed": seed,
        "rounds": 3,
        "engine": "local",
        "commit": "0123abc+dirty",
        "teacher": {"accuracy_initial": 0.938, "accuracy_final": 0.947},
        "central": {"accuracy": 1.0},
        "wire": {"uplink_bytes": 3000, "downlink_bytes": 2000, "messages": 6, "envelope_bytes": 99, "proxy_bytes": 5},
        "device_classes": {"pi5": device_class(released), "mcu": device_class(0.899)},
        "timing": {"wall_seconds": 40.5, "rounds_seconds": 25.4},
        "peak_rss_bytes": 812_000_000,
    }


def rows(count: int = 3, refused: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return [
        {
            "round": number,
            "refused": refused if refused and number == 2 else {},
            "entropy_before": 2.0 / number,
            "entropy_after": 1.5 / number,
            "teacher_accuracy": 0.94,
            "released_accuracy": dict.fromkeys(NAMES, 0.3 * number),
            "device_accuracy": {"pi5": 0.2 * number, "mcu": None},
            "uplink_bytes": 1000 * number,
            "downlink_bytes": 1000 * (number - 1),
        }
        for number in range(1, count + 1)
    ]


def write(out: Path, content: dict[str, Any] | None = None, lines: list[dict[str, Any]] | None = None) -> str:
    facts = {
        "confusion": [[31, 1, 0], [0, 27, 4], [2, 0, 29]],
        "drop_interval": (-0.0021, 0.0123),
        "torch_difference": 1.3e-7,
        "quantized_operators": 5,
        "accuracy_fp32": 0.955,
        "accuracy_int8": 0.951,
        "robustness": {"noise": {"0": 0.95, "0.1": 0.8}, "blur": {"0": 0.95, "0.1": 0.6}},
        "checks": [Check("flash", "13 kB", "12 kB", False), Check("latency", "1.00 ms", "", True, False)],
    }
    labels = np.array([0, 0, 1, 2, 2, 2], dtype=np.int64)
    partition = [np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([], dtype=np.int64), np.array([2])]
    released = dict.fromkeys(NAMES, facts)
    write_report(out, content or summary(), rows() if lines is None else lines, released, partition, labels, LABELS)
    return (out / "report.html").read_text()


class Reader(HTMLParser):
    """Collects tags, attributes that load something, ids, and the shown text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(value) for key, value in attrs if key in ("src", "href", "xlink:href", "srcset")]
        self.ids += [str(value) for key, value in attrs if key == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data.split()


def test_page_loads_nothing_and_holds_all_plots(tmp_path: Path) -> None:
    page = write(tmp_path)
    found = Reader(page)
    assert found.tags.count("svg") == 6
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert all(place.startswith("#") for place in found.loaded)
    assert "@import" not in page
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_although_plots_share_a_page(tmp_path: Path) -> None:
    ids = Reader(write(tmp_path)).ids
    assert len(ids) == len(set(ids)) > 5


def test_plots_take_the_colours_of_the_page(tmp_path: Path) -> None:
    page = write(tmp_path)
    plots = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "currentColor" in plots
    assert "#1b1f24" not in plots
    assert 'style="fill: #ffffff' not in plots, "a background of its own"


def test_headlines_table_check_and_facts_are_shown(tmp_path: Path) -> None:
    text = " ".join(Reader(write(tmp_path)).text)
    for expected in (
        "+2.3 pts",
        "-0.3 pts",
        "68.7→25.8",
        "+0.4 -0.2 to +1.2 1.3e-07 5 students/pi5/student.onnx",
        "0123abc+dirty",
        "136 18x",
        "812.0 MB",
        "flash 13 kB 12 kB refused",
        "latency 1.00 ms — holds",
    ):
        assert expected in text


def test_refused_answers_are_listed_and_escaped(tmp_path: Path) -> None:
    assert "Refused answers" not in write(tmp_path / "none")
    page = write(tmp_path, lines=rows(refused={"7": "<script>alert(1)</script>"}))
    assert "Refused answers" in page
    assert '<td class="text">2</td><td class="text">7</td>' in page
    assert "<script" not in page


def test_of_many_refused_answers_the_first_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    page = write(tmp_path, lines=rows(2, refused={str(number): "too late" for number in range(SHOWN_REFUSALS + 7)}))
    assert page.count("too late") == SHOWN_REFUSALS
    assert "and 7 more, in rounds.jsonl" in page


def test_same_run_writes_the_same_page(tmp_path: Path) -> None:
    assert write(tmp_path / "a") == write(tmp_path / "b")


def test_threads_write_the_same_page_as_one_alone(tmp_path: Path) -> None:
    alone = write(tmp_path / "alone")
    with ThreadPoolExecutor(3) as pool:
        pages = list(pool.map(write, [tmp_path / str(number) for number in range(3)]))
    assert pages == [alone] * 3


def test_null_figures_and_a_single_round_make_a_page(tmp_path: Path) -> None:
    content = summary()
    content["commit"] = content["central"]["accuracy"] = None
    for key in ("accuracy_local_only", "accuracy_teacher_only", "accuracy_released"):
        content["device_classes"]["mcu"][key] = None
    page = write(tmp_path, content, rows(1))
    assert "—" in page
    assert not {"None", "nan", "nan%"} & set(Reader(page).text)


def test_series_keeps_a_gap_where_a_round_has_no_value() -> None:
    assert np.isnan(series(rows(), ("device_accuracy", "mcu"))).all()
    assert series(rows(), ("device_accuracy", "pi5")) == pytest.approx([0.2, 0.4, 0.6])


def test_partition_counts_samples_by_device_and_class() -> None:
    labels = np.array([0, 0, 2], dtype=np.int64)
    counts = class_counts([np.array([0, 1]), np.array([2]), np.array([], dtype=np.int64)], labels, 3)
    assert counts.tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_seeds_page_shows_mean_spread_and_a_band(tmp_path: Path) -> None:
    seeds = combine([summary(0, 0.951), summary(1, 0.931)])
    lines = rows()
    for row in lines:
        row["released_accuracy"] = dict.fromkeys(NAMES, 0.25 * row["round"])
    write_seeds_report(tmp_path, seeds, {0: rows(refused={"7": "too late"}), 1: lines})
    page = (tmp_path / "report.html").read_text()
    found = Reader(page)
    assert found.tags.count("svg") == 1
    assert page.count("FillBetween") == 2 * 3
    text = " ".join(found.text)
    assert "94.1 ±1.4" in text
    assert "2 (seed 0) 7 too late" in text
