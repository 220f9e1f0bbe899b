"""What devices get from a running service over real gRPC."""

import hashlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import pytest

from fedstill.release.manifest import FLOAT_FILE, INT8_FILE, MANIFEST
from fedstill.release.verify import Signed, verify_metadata
from protos.delivery_pb2 import FetchRequest, NewestReply, NewestRequest, Outcome, Telemetry
from protos.delivery_pb2_grpc import DeliveryStub
from server.delivery import rollout as rollouts
from server.delivery.records import read_summary
from server.delivery.rollout import Rollout
from server.delivery.service import CHUNK
from server.delivery.state import State
from server.release.keys import Keys
from server.release.store import publish, renew

from .conftest import PATIENCE, Running, metrics

Make = Callable[..., Path]
Release = Callable[..., int]
Start = Callable[..., Running]
BIG = random.Random(0).randbytes(1500)  # 450 kB as a model: several chunks and blocks


def newest(stub: DeliveryStub, device: str = "a", installed: int = 0, **fields: object) -> NewestReply:
    known = {"device_class": "pi5", **fields}
    request = NewestRequest(device_id=device, installed_version=installed, **known)  # type: ignore[arg-type]
    return stub.Newest(request, timeout=PATIENCE)


def until(stub: DeliveryStub, version: int) -> None:
    """Wait until the service has seen a version in the store."""
    ends = time.monotonic() + PATIENCE
    while newest(stub, installed=version).version != version:
        assert time.monotonic() < ends
        time.sleep(0.02)


def fetched(stub: DeliveryStub, name: str, version: int = 1, offset: int = 0, device_class: str = "pi5") -> bytes:
    content = b""
    request = FetchRequest(device_class=device_class, version=version, name=name, offset=offset)
    for chunk in stub.Fetch(request, timeout=PATIENCE):
        assert chunk.offset == offset + len(content)
        assert 0 < len(chunk.data) <= CHUNK
        content += chunk.data
    return content


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def report(device: str, sequence: int = 1, version: int = 1, **fields: object) -> Telemetry:
    known = {"device_class": "pi5", "outcome": Outcome.OUTCOME_RUNNING, **fields}
    return Telemetry(device_id=device, sequence=sequence, version=version, **known)  # type: ignore[arg-type]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def change(state: State, made: Callable[[Rollout], Rollout], available: list[int]) -> None:
    state.change("pi5", lambda known: made(known or rollouts.begun(available)))


def test_a_device_gets_metadata_that_its_root_trusts_and_the_roots_it_lacks(
    release: Release, start: Start, keys: Keys
) -> None:
    release()
    keys.rotate("root")
    version = release()
    reply = newest(start().stub(), root_version=1)
    assert (reply.granted, reply.version, reply.withdrawn) == (True, version, False)
    assert list(reply.roots) == [keys.roots()["2.root.json"]]
    signed = verify_metadata(keys.trust, reply.timestamp, reply.snapshot, reply.targets, datetime.now(UTC))
    assert (signed.device_class, signed.version) == ("pi5", version)


def test_nothing_for_a_class_without_releases_or_a_device_without_a_name(release: Release, start: Start) -> None:
    release()
    stub = start().stub()
    for other in ("pi4", "", "../pi5", "x" * 5000):
        reply = newest(stub, device_class=other)
        assert (reply.granted, reply.version, reply.timestamp) == (False, 0, b"")
        assert reply.reason.startswith("no release for device class")
    for device in ("", "../a", "a" * 101):
        assert refused(partial(newest, stub, device))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_expired_signatures_are_not_offered_and_renewed_ones_are(
    release: Release, start: Start, keys: Keys, tmp_path: Path
) -> None:
    release()
    renew(str(tmp_path / "store"), keys, days=2e-5)  # a second or two
    stub = start().stub()
    ends = time.monotonic() + PATIENCE
    while (reply := newest(stub)).granted:
        assert time.monotonic() < ends
        time.sleep(0.1)
    assert "expired" in reply.reason
    renew(str(tmp_path / "store"), keys, days=1)
    until(stub, 1)


def test_a_download_goes_on_at_any_byte(release: Release, start: Start, tmp_path: Path) -> None:
    release(content=BIG)
    stub = start().stub()
    content = (tmp_path / "store" / "pi5" / "1" / INT8_FILE).read_bytes()
    edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK - 1, 4 * CHUNK, len(content) - 1, len(content)]
    for offset in (*edges, *random.Random(1).sample(range(len(content)), 10)):
        assert fetched(stub, INT8_FILE, offset=offset) == content[offset:]
    past = refused(lambda: fetched(stub, INT8_FILE, offset=len(content) + 1))
    assert past == (grpc.StatusCode.OUT_OF_RANGE, f"{INT8_FILE} has {len(content)} bytes")


def test_a_device_that_takes_nothing_is_given_up_and_told_where_to_go_on(
    release: Release, start: Start, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.delivery.service.STALLED", 0.5)
    release(content=random.Random(3).randbytes(40_000))  # 12 MB: more than the connection holds
    stub = start(metrics=f"127.0.0.1:{free}").stub()
    chunks = stub.Fetch(FetchRequest(device_class="pi5", version=1, name=INT8_FILE), timeout=2 * PATIENCE)
    kept = [next(iter(chunks))]
    ends = time.monotonic() + PATIENCE
    while 'fedstill_calls_total{code="DEADLINE_EXCEEDED",method="Fetch"} 1.0' not in metrics(free):
        assert time.monotonic() < ends
        time.sleep(0.1)
    code, reason = refused(lambda: kept.extend(chunks))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason is not None
    assert reason.startswith("stopped at byte ")
    size = sum(len(chunk.data) for chunk in kept)
    assert len(fetched(stub, INT8_FILE, offset=size)) == 12_000_000 - size


def test_a_store_behind_a_url_is_delivered_alike(tmp_path: Path, keys: Keys, make: Make, start: Start) -> None:
    folder = make(tmp_path / "release", keys, "pi5", BIG)
    url = f"memory://{tmp_path.name}-store"
    publish(folder, url, keys)
    stub = start(store=url).stub()
    assert newest(stub).granted
    assert fetched(stub, INT8_FILE, offset=100_001) == (folder / INT8_FILE).read_bytes()[100_001:]


def test_an_interrupted_download_costs_less_than_a_chunk(release: Release, start: Start, tmp_path: Path) -> None:
    release(content=BIG)
    service = start()
    content = (tmp_path / "store" / "pi5" / "1" / INT8_FILE).read_bytes()
    rng, kept, again = random.Random(2), 0, 0
    while kept < len(content):
        channel = service.channel(None)
        call = DeliveryStub(channel).Fetch(
            FetchRequest(device_class="pi5", version=1, name=INT8_FILE, offset=kept), timeout=PATIENCE
        )
        for chunk in call:
            # The link goes down in the middle of a chunk; the part of it on disk is good to go on from.
            cut = rng.randrange(1, len(chunk.data) + 1)
            assert chunk.data[:cut] == content[kept : kept + cut]
            kept, again = kept + cut, max(again, len(chunk.data) - cut)
            break
        channel.close()
    assert again < CHUNK


def test_only_files_that_the_targets_list_come_and_no_path(release: Release, start: Start, tmp_path: Path) -> None:
    release(), release("mcu")
    (tmp_path / "store" / "pi5" / "1" / "secret").write_text("secret")
    stub = start().stub()
    assert set(map(len, (fetched(stub, name) for name in (INT8_FILE, FLOAT_FILE, MANIFEST)))) != {0}
    tricks = ["", ".", "..", "secret", "timestamp.json", "../1/student.onnx", "/etc/passwd", "student.onnx/", "a\0b"]
    tricks += ["..%2f1%2fstudent.onnx", "..\\1\\student.onnx", str(tmp_path / "store/pi5/1/student.onnx"), "x" * 9999]
    for name in tricks:
        assert refused(partial(fetched, stub, name))[0] is grpc.StatusCode.NOT_FOUND
    for device_class in ("", ".", "..", "../store/pi5", "pi5/", "roots", "mcu/../pi5"):
        assert refused(partial(fetched, stub, INT8_FILE, device_class=device_class))[0] is grpc.StatusCode.NOT_FOUND
    for version in (0, 2, 2**63):
        assert refused(partial(fetched, stub, INT8_FILE, version))[0] is grpc.StatusCode.NOT_FOUND


def test_a_release_that_is_not_good_is_not_offered(release: Release, start: Start, tmp_path: Path) -> None:
    release(), release()
    place = tmp_path / "store" / "pi5" / "2"
    (place / "targets.json").write_bytes((place / "targets.json").read_bytes().replace(b"2", b"3", 1))
    stub = start().stub()
    assert refused(lambda: fetched(stub, INT8_FILE, 2))[0] is grpc.StatusCode.NOT_FOUND
    assert newest(stub).version == 1


def test_a_file_that_is_shorter_than_signed_ends_without_a_wrong_byte(
    release: Release, start: Start, tmp_path: Path
) -> None:
    release(content=BIG)
    path = tmp_path / "store" / "pi5" / "1" / INT8_FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(lambda: fetched(start().stub(), INT8_FILE))[0] is grpc.StatusCode.UNAVAILABLE


def test_two_versions_the_staged_devices_get_the_new_and_all_others_the_promoted_one(
    release: Release, start: Start, state: State, keys: Keys
) -> None:
    release()
    stub = start().stub()
    change(state, lambda known: rollouts.promote(known, [1], 0), [1])
    release(content=b"newer")
    change(state, lambda known: rollouts.grouped(known, "canary", ("canary-1",), None), [1])
    change(state, lambda known: rollouts.stage(known, [1, 2], 30, 0, None), [1, 2])
    until(stub, 2)
    devices = [f"device-{number}" for number in range(60)]
    got = {device: newest(stub, device) for device in ("canary-1", *devices)}
    assert {device for device in devices if got[device].version == 2} == {
        device for device in devices if rollouts.share_of(device, 2) < 30
    }
    assert got["canary-1"].version == 2

    def signed(version: int) -> Signed:
        reply = next(reply for reply in got.values() if reply.version == version)
        return verify_metadata(keys.trust, reply.timestamp, reply.snapshot, reply.targets, datetime.now(UTC))

    assert (signed(1).version, signed(2).version) == (1, 2)
    assert signed(1).timestamp_version < signed(2).timestamp_version
    assert hashlib.sha256(fetched(stub, INT8_FILE, 1)).hexdigest() == signed(1).files[INT8_FILE][1]
    assert hashlib.sha256(fetched(stub, INT8_FILE, 2)).hexdigest() == signed(2).files[INT8_FILE][1]


def test_a_version_that_nobody_is_granted_can_not_be_fetched(release: Release, start: Start, state: State) -> None:
    release(), release()
    stub = start().stub()
    change(state, lambda known: rollouts.stage(known, [1, 2], 0, 0, None), [1, 2])
    code, reason = refused(lambda: fetched(stub, INT8_FILE, 2))
    assert (code, reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "version 2 of pi5 is not granted to any device; ask for the newest again",
    )
    change(state, lambda known: rollouts.stage(known, [1, 2], 1, 0, None), [1, 2])
    assert fetched(stub, INT8_FILE, 2)


def test_a_withdrawn_version_is_told_to_who_runs_it_and_stops_in_the_middle_of_a_download(
    release: Release, start: Start, state: State
) -> None:
    release(), release(content=random.Random(3).randbytes(40_000))
    stub = start().stub()
    chunks = stub.Fetch(FetchRequest(device_class="pi5", version=2, name=INT8_FILE), timeout=PATIENCE)
    assert next(iter(chunks)).offset == 0
    change(state, lambda known: rollouts.withdraw(known, 0), [1, 2])
    assert refused(lambda: list(chunks)) == (grpc.StatusCode.FAILED_PRECONDITION, "version 2 is withdrawn")
    reply = newest(stub, installed=2)
    assert (reply.version, reply.withdrawn) == (1, True)
    assert refused(lambda: fetched(stub, INT8_FILE, 2))[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_failures_in_a_group_pause_the_rollout_by_themselves_and_it_can_go_on(
    release: Release, start: Start, state: State
) -> None:
    release(), release()
    stub = start().stub()
    members = tuple(f"canary-{number}" for number in range(5))
    change(state, lambda known: rollouts.stage(known, [1, 2], 0, 0, None), [1, 2])
    change(state, lambda known: rollouts.grouped(known, "canary", members, 0.2), [1, 2])

    def fails(device: str, sequence: int, outcome: int) -> None:
        stub.Report(report(device, sequence, 2, outcome=outcome), timeout=PATIENCE)

    fails("canary-0", 1, Outcome.OUTCOME_REFUSED)
    fails("canary-1", 1, Outcome.OUTCOME_COMMITTED)
    assert newest(stub, "canary-2").version == 2
    fails("canary-3", 1, Outcome.OUTCOME_ROLLED_BACK)
    assert newest(stub, "canary-2").version == 1
    assert newest(stub, "canary-1", installed=2).version == 2
    paused = state.rollout("pi5")
    assert paused is not None
    assert paused.paused == "group canary: 2 of 5 devices refused or rolled back version 2"
    change(state, lambda known: rollouts.resumed(known, time.time()), [1, 2])
    assert newest(stub, "canary-2").version == 2
    fails("canary-0", 2, Outcome.OUTCOME_REFUSED)
    assert newest(stub, "canary-2").version == 2


def test_reports_are_acknowledged_once_they_are_kept_and_garbage_is_refused(
    release: Release, start: Start, tmp_path: Path
) -> None:
    release()
    stub = start().stub()
    assert stub.Report(report("a", 7, latency_p50_ms=3.0), timeout=PATIENCE).accepted_sequence == 7
    assert stub.Report(report("a", 7, latency_p50_ms=9.0), timeout=PATIENCE).accepted_sequence == 7
    garbage = [
        report("a", 8, latency_p50_ms=float("nan")),
        report("a", 8, version=2),
        report("a", 8, device_class="pi4"),
        report("../a", 8),
    ]
    for message in garbage:
        assert refused(partial(stub.Report, message, timeout=PATIENCE))[0] is grpc.StatusCode.INVALID_ARGUMENT
    endless = partial(stub.Report, report("a", 8, detail="x" * 200_000), timeout=PATIENCE)
    assert refused(endless)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    (found,) = read_summary(tmp_path / "state" / "telemetry.sqlite").found
    assert (found.devices, found.latency_ms_p50, found.task, found.student) == (1, 3.0, "digits", "tiny")


def test_a_damaged_rollout_gives_nobody_anything(release: Release, start: Start, state: State) -> None:
    release()
    stub = start().stub()
    assert newest(stub).granted
    (state.folder / "rollouts" / "pi5.json").write_text("{")
    assert refused(lambda: newest(stub))[0] is grpc.StatusCode.UNAVAILABLE
    assert refused(lambda: fetched(stub, INT8_FILE))[0] is grpc.StatusCode.UNAVAILABLE
