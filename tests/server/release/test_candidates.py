from dataclasses import replace

from server.release.candidates import Candidate, best

INT8 = Candidate("static-int8", bytes=250, accuracy=0.95, latency_ms=2.0)
HALF = Candidate("float16", bytes=500, accuracy=0.95, latency_ms=1.05)
FLOAT = Candidate("float32", bytes=1000, accuracy=0.95, latency_ms=1.0)


def test_the_fastest_is_taken_however_large() -> None:
    assert best([INT8, FLOAT]) == "float32"


def test_of_equally_fast_ones_the_smallest_file_is_taken() -> None:
    assert best([INT8, HALF, FLOAT]) == "float16"
    assert best([replace(INT8, latency_ms=1.05), HALF, FLOAT]) == "static-int8"


def test_what_misses_a_check_is_not_taken_however_fast() -> None:
    assert (
        best([replace(FLOAT, refused="flash 1 kB, allowed 0 kB"), replace(HALF, refused="drop"), INT8]) == "static-int8"
    )


def test_where_none_may_be_taken_the_default_is_refused_with_its_figures() -> None:
    assert best([replace(found, refused="flash") for found in (FLOAT, HALF)]) == "static-int8"
