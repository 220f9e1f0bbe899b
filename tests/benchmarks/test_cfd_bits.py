import json
import math
from pathlib import Path

import pytest

from benchmarks.cfd_bits import ENCODINGS, Row, bits, measure, table

ROOT = Path(__file__).parents[2]
STORED = json.loads((ROOT / "benchmarks" / "results" / "cfd_bits" / "sizes.json").read_text())["rows"]
SAMPLES = 800


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.encoding: row for row in measure(SAMPLES)}


def test_one_bit_labels_take_log2_of_the_classes(rows: dict[str, Row]) -> None:
    assert bits("simplex1", 10) == math.log2(10)
    assert abs(rows["simplex1"].payload - math.ceil(SAMPLES * math.log2(10) / 8)) <= 1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_payloads_are_those_of_the_formulas_to_within_a_byte(encoding: str, rows: dict[str, Row]) -> None:
    row = rows[encoding]
    assert abs(row.payload - math.ceil(row.formula)) <= 1
    assert row.payload < row.packet < row.payload + 60


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_coding_takes_less_and_a_delta_less_again(encoding: str, rows: dict[str, Row]) -> None:
    row = rows[encoding]
    assert row.coded < row.formula
    assert row.delta < row.coded


def test_the_table_has_a_row_for_every_encoding(rows: dict[str, Row]) -> None:
    page = table(list(rows.values()), SAMPLES)
    assert all(f"\n| {encoding} |" in page for encoding in ENCODINGS)


@pytest.mark.parametrize("samples", STORED)
def test_the_page_shows_what_is_stored_and_that_agrees_with_the_formulas(samples: str) -> None:
    rows = [Row(**row) for row in STORED[samples]]
    assert table(rows, int(samples)) in (ROOT / "docs" / "wire.md").read_text()
    for row in rows:
        assert row.formula == int(samples) * bits(row.encoding, 10) / 8
        assert abs(row.payload - math.ceil(row.formula)) <= 1
