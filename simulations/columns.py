"""What is shown of each device class and of a run as a whole: the same on the terminal and in the report."""

from dataclasses import dataclass

from simulations.figures import (
    DASH,
    Cell,
    Figures,
    Form,
    count,
    kilobytes,
    milliseconds,
    percent,
    points,
    seconds,
    size,
    times,
)
from simulations.fleet.lines import virtual_lines


@dataclass(frozen=True)
class Column:
    """A column of the table of device classes.

    Attributes:
        title: heading, two lines at most.
        note: what it means, in a sentence.
        cost: it is about bytes and time, not about what the student is and knows.
        text: it holds words, not a number.
    """

    title: str
    note: str
    cost: bool = False
    text: bool = False


COLUMNS = (
    Column("class", "device class", text=True),
    Column("dev", "devices of this class"),
    Column("student", "architecture of the student", text=True),
    Column("para-\nmeters", "trained parameters"),
    Column("local\nonly", "accuracy of local-only training, mean of the devices"),
    Column("teach.\nonly", "accuracy of the same student distilled from the initial teacher alone"),
    Column("rel.\nfp32", "accuracy of the released student before quantization"),
    Column("rel.\nint8", "accuracy of the released, quantized student: int8, or the format of its class"),
    Column(
        "gain\npts",
        "federation gain: released, quantized student minus the larger of local-only and teacher-only, in points",
    ),
    Column("size kB\nfp32→int8", "size of the ONNX files", cost=True),
    Column("latency ms\nfp32→int8", "median of one sample in ONNX Runtime on this machine, one thread", cost=True),
    Column("up\nkB", "bytes up per device and round", cost=True),
    Column("down\nkB", "bytes down per device and round", cost=True),
    Column("FedAvg\nkB, x", "bytes FedAvg needs per device and round for this student, both ways; ratio", cost=True),
)


def class_rows(figures: Figures) -> list[list[Cell]]:
    """Return a row per device class, a cell per column of `COLUMNS`."""
    return [_class_row(figures, name) for name in figures.classes]


def _class_row(figures: Figures, name: str) -> list[Cell]:
    def own(form: Form, key: str, exact: bool = False) -> Cell:
        return figures.cell(form, "device_classes", name, key, exact=exact)

    student = figures.value("device_classes", name, "student")
    fedavg = own(kilobytes, "fedavg_bytes_per_round")
    ratio = figures.cell(times, "derived", "fedavg_ratio", name)
    return [
        _name_cell(figures, name),
        own(count, "devices", exact=True),
        Cell(DASH if student is None else str(student)),
        own(count, "parameters", exact=True),
        own(percent, "accuracy_local_only"),
        own(percent, "accuracy_teacher_only"),
        own(percent, "accuracy_released_fp32"),
        own(percent, "accuracy_released"),
        gain_cell(figures, "federation_gain", name),
        _pair(own(kilobytes, "onnx_fp32_bytes"), own(kilobytes, "onnx_bytes")),
        _pair(own(milliseconds, "latency_fp32_ms_p50"), own(milliseconds, "latency_ms_p50")),
        own(kilobytes, "uplink_bytes_per_round"),
        own(kilobytes, "downlink_bytes_per_round"),
        Cell(f"{fedavg.text} {ratio.text}", ratio.spread),
    ]


def _name_cell(figures: Figures, name: str) -> Cell:
    """Return a class's name, and whether its release was refused (in any of several seeds)."""
    refused = figures.value("derived", "refused", name)
    return Cell(f"{name} refused", tone="bad") if refused else Cell(name)


def gain_cell(figures: Figures, *path: str) -> Cell:
    """Return a gain in points, toned by its sign."""
    cell, value = figures.cell(points, "derived", *path), figures.value("derived", *path)
    return Cell(cell.text, cell.spread, "" if value is None else "good" if value > 0 else "bad")


def _pair(before: Cell, after: Cell) -> Cell:
    spread = f"{before.spread}→{after.spread.lstrip('±')}" if before.spread and after.spread else ""
    return Cell(f"{before.text}→{after.text}", spread)


def _field(figures: Figures, name: str) -> str:
    """Return what a class's own devices told about their last release; empty: nothing."""

    def own(form: Form, key: str) -> str:
        return figures.cell(form, "device_classes", name, f"field_{key}", exact=True).text

    if figures.value("device_classes", name, "field_devices") is None:
        return ""
    slow, drifting = (figures.value("device_classes", name, f"field_{key}") for key in ("slow", "drifting"))
    return (
        f"{own(count, 'devices')} devices run version {own(count, 'version')}:"
        f" {own(milliseconds, 'latency_ms_p50')} ms{', slow' if slow else ''};"
        f" drift {own(percent, 'drift')} %{', drifting' if drifting else ''};"
        f" accuracy {own(percent, 'accuracy')} %"
    )


def outcome(figures: Figures) -> list[tuple[str, str]]:
    """Return what is known of the run as a whole: pairs of a name and one line."""

    def line(form: Form, *path: str) -> str:
        return figures.cell(form, *path).line

    first, last = line(percent, "teacher", "accuracy_initial"), line(percent, "teacher", "accuracy_final")
    teacher = DASH if figures.value("teacher") is None else f"{first} → {last} % (initial → final)"
    ceiling, gap = line(percent, "central", "accuracy"), line(percent, "derived", "gap_closed")
    formats = [(name, figures.value("device_classes", name, "format")) for name in figures.classes]
    others = [f"{name} {found}" for name, found in formats if found not in (None, "static-int8")]
    reasons = [(name, figures.value("device_classes", name, "refused") or []) for name in figures.classes]
    return [
        *((f"{name} refused", "; ".join(found)) for name, found in reasons if found),
        *((f"{name} in the field", found) for name in figures.classes if (found := _field(figures, name))),
        *([("not static-int8", ", ".join(others))] if others else []),
        ("teacher", teacher),
        ("central ceiling", ceiling if ceiling == DASH else f"{ceiling} %"),
        ("gap closed", gap if gap == DASH else f"{gap} % of the way from teacher-only to the ceiling"),
        (
            "wire",
            f"{line(size, 'wire', 'uplink_bytes')} up, {line(size, 'wire', 'downlink_bytes')} down"
            f" (FedAvg: {line(times, 'derived', 'fedavg_ratio_total')} as much)",
        ),
        (
            "apart from these",
            f"{line(size, 'wire', 'envelope_bytes')} envelope of {line(count, 'wire', 'messages')} messages,"
            f" {line(size, 'wire', 'proxy_bytes')} proxy set",
        ),
        *virtual_lines(figures),
        (
            "wall time",
            f"{line(seconds, 'timing', 'wall_seconds')}, of it rounds {line(seconds, 'timing', 'rounds_seconds')}",
        ),
        ("peak memory", line(size, "peak_rss_bytes")),
    ]
