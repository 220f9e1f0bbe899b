import asyncio
from pathlib import Path

from benchmarks.delivery import interrupted, measured, service
from benchmarks.downloads import Target
from benchmarks.releases import certificate, published


def test_all_devices_get_every_byte_and_interrupted_ones_go_on(tmp_path: Path) -> None:
    file = published(tmp_path, 300_000)
    authority, cert, key = certificate(tmp_path)
    with service(tmp_path, cert, key) as (server, port):
        target = Target(port, authority, file)
        row = measured(server, target, channels=5, processes=2)
        cost = asyncio.run(interrupted(target, cuts=2))
    assert (row["right"], row["failures"]) == (5, [])
    assert cost["cuts"] >= 2
    assert cost["most_bytes"] > 0


def test_a_server_that_sends_other_bytes_is_told_as_a_failure(tmp_path: Path) -> None:
    file = published(tmp_path, 300_000)
    authority, cert, key = certificate(tmp_path)
    expected = tmp_path / file.name
    expected.write_bytes(file.read_bytes()[:-1] + b"x")
    with service(tmp_path, cert, key) as (server, port):
        row = measured(server, Target(port, authority, expected), channels=2, processes=1)
    assert row["right"] == 0
    assert "other bytes at" in row["failures"][0]
