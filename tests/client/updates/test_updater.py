"""The updater against a real delivery service: what it installs, and the many things that it does not."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.updates.clock import BUILT
from client.updates.home import ROOT
from client.updates.rehearsal import rehearse
from client.updates.trial import Chosen
from client.updates.updater import Kind
from client.updates.watch import Rules
from fedstill.errors import ConfigError, ReleaseError, UpdateError
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE, MANIFEST, Manifest
from fedstill.release.trust import Trust
from fedstill.release.verify import METADATA, SNAPSHOT, TARGETS, TIMESTAMP, verify_folder
from protos.delivery_pb2 import (
    OUTCOME_COMMITTED,
    OUTCOME_INSTALLED,
    OUTCOME_REFUSED,
    OUTCOME_ROLLED_BACK,
    Chunk,
    FetchRequest,
)
from server.release.keys import Keys, open_keys
from server.release.sign import sign_again
from tests.client.devices import Device, make_release, version_of

Releases = tuple[Path, Path]


@pytest.fixture
def kept(device: Device, releases: Releases) -> Device:
    """A device on which the older release was kept; the server offers the newer one."""
    assert device.updater().check().kind is Kind.KEPT
    device.delivery.folder = releases[1]
    device.delivery.fetched.clear()
    device.delivery.reports.clear()
    return device


def unharmed(device: Device, version: int) -> None:
    """What was good still runs, is whole and trusted, and nothing is watched."""
    state = device.home.state()
    assert state.running is not None
    assert (state.running.version, state.watched) == (version, False)
    trust = Trust.load((device.home.folder / ROOT).read_bytes())
    verify_folder(device.home.slot(version), trust, None)


def test_a_newer_release_is_kept_and_the_older_one_is_what_to_go_back_to(kept: Device, releases: Releases) -> None:
    old, new = map(version_of, releases)
    assert kept.updater().check().kind is Kind.KEPT
    unharmed(kept, new)
    assert [good.version for good in kept.home.state().good] == [old]
    assert kept.delivery.outcomes() == [(new, OUTCOME_INSTALLED), (new, OUTCOME_COMMITTED)]
    assert kept.delivery.reports[0].latency_p50_ms == 1.0
    again = kept.updater().check()
    assert (again.kind, again.detail) == (Kind.NOTHING, f"version {new} is the newest")


def test_at_most_three_releases_are_on_the_disk(kept: Device, keys: Keys, tmp_path: Path) -> None:
    for seed in range(3, 6):
        assert kept.updater().check().kind is Kind.KEPT
        kept.delivery.folder = make_release(tmp_path / str(seed), keys, seed=seed)
    assert kept.updater().check().kind is Kind.KEPT
    slots = {path.name for path in (kept.home.folder / "slots").iterdir()}
    assert {str(version) for version in kept.home.state().named()} <= slots
    assert len(slots) <= 3


def test_a_device_without_a_trusted_root_asks_for_nothing_and_installs_nothing(device: Device) -> None:
    (device.home.folder / ROOT).unlink()
    with pytest.raises(ConfigError, match="no trusted root, so nothing is installed"):
        device.updater().check()
    assert (device.delivery.asked, device.running()) == ([], None)


def another_key(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.delivery.folder = make_release(folder / "r", open_keys(folder / "keys"))
    return "which the trusted root does not name"


def another_class(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.delivery.folder = make_release(folder / "r", keys, device_class="zero2w")
    return "a release for zero2w, this device is of class pi5"


def an_old_version(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.updater().check()
    device.delivery.folder, device.delivery.fetched[:] = releases[0], []
    return "an old release is replayed"


def two_releases_mixed(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.delivery.replaced = {TARGETS: (releases[0] / TARGETS).read_bytes()}
    return "not the file that was signed"


def two_releases_mixed_at_the_snapshot(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.delivery.replaced = {name: (releases[0] / name).read_bytes() for name in (SNAPSHOT, TARGETS)}
    return "not the file that was signed"


def a_changed_byte(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    content = (releases[1] / TIMESTAMP).read_bytes()
    device.delivery.replaced = {TIMESTAMP: content.replace(b'"version": ', b'"version": 9', 1)}
    return "the signature of key .* is wrong"


def a_foreign_root(device: Device, keys: Keys, releases: Releases, folder: Path) -> str:
    device.delivery.roots = [open_keys(folder / "keys").rotate("root").content]
    return "which the trusted root does not name for root"


@pytest.mark.parametrize(
    "offer",
    [
        another_key,
        another_class,
        an_old_version,
        two_releases_mixed,
        two_releases_mixed_at_the_snapshot,
        a_changed_byte,
        a_foreign_root,
    ],
)
def test_bad_metadata_are_refused_before_a_byte_of_a_model_is_asked_for(
    offer: Callable[[Device, Keys, Releases, Path], str],
    kept: Device,
    keys: Keys,
    releases: Releases,
    tmp_path: Path,
) -> None:
    reason = offer(kept, keys, releases, tmp_path)
    runs = kept.running()
    assert runs is not None
    with pytest.raises(ReleaseError, match=reason):
        kept.updater().check()
    assert kept.delivery.fetched == []
    unharmed(kept, runs)
    assert kept.home.state().failed == ()


def test_expired_metadata_are_refused(kept: Device, releases: Releases) -> None:
    with pytest.raises(ReleaseError, match=r"timestamp\.json: expired on"):
        kept.updater(now=lambda: datetime.now(UTC) + timedelta(days=200)).check()
    assert kept.delivery.fetched == []
    unharmed(kept, version_of(releases[0]))
    assert kept.updater().check().kind is Kind.KEPT  # a clock that ran ahead once does no lasting harm


def flipped(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield Chunk(offset=chunk.offset, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:])


def truncated(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    yield from (chunk for chunk in chunks if chunk.offset == 0)


def displaced(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    yield from (Chunk(offset=chunk.offset + 1, data=chunk.data) for chunk in chunks)


def empty(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    while True:
        yield Chunk(offset=request.offset)


def endless(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    place = request.offset
    while True:
        yield Chunk(offset=place, data=b"x" * 1001)
        place += 1001


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flipped, "arrived twice with another content than the signed one"),
        (truncated, "the server ends it after 1500 of"),
        (displaced, "bytes from 1 on, asked for 0"),
        (empty, "an empty chunk"),
        (endless, "more than the .* bytes that are signed"),
    ],
)
def test_bytes_that_are_not_the_signed_ones_are_never_switched_to(
    spoil: Callable[[FetchRequest, Iterator[Chunk]], Iterator[Chunk]], reason: str, kept: Device, releases: Releases
) -> None:
    honest, kept.delivery.spoil = kept.delivery.spoil, spoil
    with pytest.raises(UpdateError, match=reason):
        kept.updater().check()
    signed = sum((releases[1] / name).stat().st_size for name in (INT8_FILE, FLOAT_FILE, MANIFEST))
    slot = kept.home.slot(version_of(releases[1]))
    assert sum(path.stat().st_size for path in slot.iterdir() if path.name not in METADATA) <= signed
    unharmed(kept, version_of(releases[0]))
    # The path was bad, not the release: once it is honest again, the update goes on.
    kept.delivery.spoil = honest
    assert kept.updater().check().kind is Kind.KEPT
    unharmed(kept, version_of(releases[1]))


def test_one_corrupt_chunk_costs_one_file_and_not_the_update(kept: Device, releases: Releases) -> None:
    spoilt: list[str] = []

    def once(request: FetchRequest, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        if spoilt:
            return chunks
        spoilt.append(request.name)
        return flipped(request, chunks)

    kept.delivery.spoil = once
    assert kept.updater().check().kind is Kind.KEPT
    assert [request.name for request in kept.delivery.fetched].count(spoilt[0]) == 2


def test_a_server_that_sends_byte_by_byte_does_not_hold_the_device_for_ever(
    kept: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.updates.download.SLOWEST", 1e12)
    monkeypatch.setattr("client.updates.download.ANSWER", -1)
    kept.delivery.spoil = lambda request, chunks: iter([Chunk(offset=request.offset, data=next(chunks).data[:1])])
    with pytest.raises(UpdateError, match="the server ends it"):
        kept.updater().check()
    assert len(kept.delivery.fetched) == 1


def test_an_interrupted_download_goes_on_at_the_byte_where_it_was(kept: Device, releases: Releases) -> None:
    class Interrupted(BaseException):
        pass

    chunks = []

    def interrupt(step: str) -> None:
        if step.endswith("chunk"):
            chunks.append(step)
            if len(chunks) == 2:
                raise Interrupted

    before = kept.delivery.bytes_sent
    with pytest.raises(Interrupted):
        kept.updater(step=interrupt).check()
    kept.delivery.bytes_sent = before
    begun = kept.delivery.fetched[-1]
    assert kept.updater().check().kind is Kind.KEPT
    following = kept.delivery.fetched[1]
    assert (following.name, following.offset) == (begun.name, 2 * kept.delivery.chunk)
    signed = sum((releases[1] / name).stat().st_size for name in (INT8_FILE, FLOAT_FILE, MANIFEST))
    assert kept.delivery.bytes_sent - before == signed - 2 * kept.delivery.chunk


def test_a_download_of_another_release_begins_anew(kept: Device, keys: Keys, tmp_path: Path) -> None:
    slot = kept.home.slot(version_of(kept.delivery.folder))
    slot.mkdir(parents=True)
    (slot / f".{INT8_FILE}.part").write_bytes(b"of something else")
    (slot / "left.over").write_bytes(b"")
    assert kept.updater().check().kind is Kind.KEPT
    assert {request.offset for request in kept.delivery.fetched} == {0}


def test_too_little_space_is_said_before_anything_is_fetched(
    kept: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(kept.home.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_900_000))
    with pytest.raises(UpdateError, match=r"needs 2\.0 MB of disk, 1\.9 MB are free; make room"):
        kept.updater().check()
    assert kept.delivery.fetched == []
    unharmed(kept, version_of(releases[0]))


def refusing(folder: Path, manifest: Manifest) -> Chosen:
    raise ReleaseError("its self-test fails")


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"rot"), lambda path: path.unlink()])
@pytest.mark.parametrize("name", [None, MANIFEST])
def test_a_release_that_went_bad_on_the_disk_is_fetched_anew(
    name: str | None, spoil: Callable[[Path], None], device: Device, releases: Releases
) -> None:
    assert device.updater().check().kind is Kind.KEPT
    before = device.home.state().running
    assert before is not None
    spoil(device.home.slot(before.version) / (name or before.file))
    result = device.updater().check()
    assert (result.kind, "fetched anew" in result.detail) == (Kind.KEPT, True)
    assert device.home.state().running == before
    unharmed(device, version_of(releases[0]))
    assert device.updater().check().kind is Kind.NOTHING


def test_a_version_that_failed_its_trial_is_remembered_and_not_tried_again(kept: Device, releases: Releases) -> None:
    old, new = map(version_of, releases)
    result = kept.updater(trial=refusing).check()
    assert (result.kind, result.detail) == (Kind.REFUSED, f"version {new}: its self-test fails")
    unharmed(kept, old)
    assert not kept.home.slot(new).exists()
    assert kept.delivery.outcomes() == [(new, OUTCOME_REFUSED)]
    assert kept.delivery.reports[0].detail == "its self-test fails"
    kept.delivery.fetched.clear()
    again = kept.updater().check()
    assert (again.kind, again.detail) == (Kind.NOTHING, f"version {new} failed here before: its self-test fails")
    assert kept.delivery.fetched == []


def test_another_runtime_may_try_a_failed_version_again(kept: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.updater(trial=refusing).check()
    monkeypatch.setattr("client.updates.updater.runtime_version", lambda: "99.0")
    assert kept.updater().check().kind is Kind.KEPT


def test_a_release_that_takes_its_watcher_down_each_time_is_given_up(kept: Device, releases: Releases) -> None:
    class Dead(BaseException):
        pass

    def die(step: str) -> None:
        if step == "watching":
            rules = Rules()
            for _ in range(rules.starts):
                kept.home.change(lambda state: state.started(version_of(releases[1])))
            raise Dead

    with pytest.raises(Dead):
        kept.updater(step=die).check()
    assert kept.running() == version_of(releases[1])
    result = kept.updater(rehearsal=rehearse).check()
    assert result.kind is Kind.ROLLED_BACK
    assert "whoever watched it ended" in result.detail
    unharmed(kept, version_of(releases[0]))
    assert (version_of(releases[1]), OUTCOME_ROLLED_BACK) in kept.delivery.outcomes()


def test_two_updaters_at_once_are_one(kept: Device, releases: Releases) -> None:
    reasons = []

    def second(step: str) -> None:
        with pytest.raises(ConfigError) as error:
            kept.updater().check()
        reasons.append(str(error.value))

    assert kept.updater(step=second).check().kind is Kind.KEPT
    assert reasons
    assert all("another updater is at work here" in reason for reason in reasons)
    unharmed(kept, version_of(releases[1]))


def test_the_state_of_another_class_is_not_used(kept: Device) -> None:
    updater = kept.updater()
    with pytest.raises(ConfigError, match="a device of class pi5, not pi4"):
        type(updater)(updater.home, updater.server, "pi4").check()


def test_a_withdrawn_release_gives_way_to_the_last_good_one_and_no_further(
    kept: Device, releases: Releases, keys: Keys, tmp_path: Path
) -> None:
    old, new = map(version_of, releases)
    kept.updater().check()
    kept.delivery.withdrawn, kept.delivery.granted = True, False
    result = kept.updater().check()
    assert (result.kind, result.detail) == (Kind.ROLLED_BACK, f"version {new} is withdrawn; version {old} runs again")
    unharmed(kept, old)
    assert kept.updater().check().kind is Kind.NOTHING  # nothing good is left to go back to: it keeps what it has
    unharmed(kept, old)
    kept.delivery.withdrawn, kept.delivery.granted = False, True
    assert "withdrawn by the server" in kept.updater().check().detail
    unharmed(kept, old)
    kept.delivery.folder = releases[0]
    assert kept.updater().check().detail == f"version {old} runs, and nothing newer is offered"
    # What is newer than the withdrawn one is installed, though the device runs an older one.
    kept.delivery.folder, kept.delivery.withdrawn = make_release(tmp_path / "newer", keys), True
    assert kept.updater().check().kind is Kind.KEPT


def test_what_is_not_granted_is_not_installed_and_the_reason_can_be_shown(kept: Device, releases: Releases) -> None:
    kept.delivery.granted = False
    assert kept.updater().check().detail == "nothing for this device now: paused [2J"
    unharmed(kept, version_of(releases[0]))


def test_a_server_that_is_away_changes_nothing_and_reports_wait(kept: Device, releases: Releases) -> None:
    kept.delivery.deaf = True
    assert kept.updater().check().kind is Kind.KEPT
    assert kept.delivery.reports == []
    kept.delivery.deaf = False
    kept.updater().check()
    assert [report.sequence for report in kept.delivery.reports] == [3, 4]  # 1 and 2 were of the first release


def test_newer_roots_are_followed_one_by_one(device: Device, tmp_path: Path) -> None:
    keys = open_keys(tmp_path / "keys")
    (device.home.folder / ROOT).write_bytes(keys.trust.content)
    device.delivery.folder = make_release(tmp_path / "first", keys)
    assert device.updater().check().kind is Kind.KEPT
    first = keys.trust
    second, third = keys.rotate("timestamp"), keys.rotate("targets")
    folder = tmp_path / "second"
    shutil.copytree(tmp_path / "first", folder)
    sign_again(folder, first, keys)
    device.delivery.folder = folder
    with pytest.raises(ReleaseError, match="which the trusted root does not name"):
        device.updater().check()
    device.delivery.roots = [second.content, third.content]
    assert device.updater().check().kind is Kind.KEPT
    assert Trust.load((device.home.folder / ROOT).read_bytes()).version == 3
    assert device.delivery.asked[-1].root_version == 1
    device.delivery.roots = []
    assert device.updater().check().kind is Kind.NOTHING
    assert device.delivery.asked[-1].root_version == 3


def test_a_fresh_device_without_a_clock_waits_for_the_time(device: Device, releases: Releases) -> None:
    result = device.updater(now=lambda: datetime(1970, 1, 1, tzinfo=UTC)).check()
    assert result.kind is Kind.WAITING
    assert "the clock can't be right (1970-01-01 00:00)" in result.detail
    assert (device.running(), device.delivery.fetched) == (None, [])
    assert device.updater().check().kind is Kind.KEPT


def test_with_the_clock_set_back_a_newer_signed_timestamp_is_evidence_and_an_equal_one_is_not(
    kept: Device, releases: Releases
) -> None:
    def back() -> datetime:
        return BUILT - timedelta(days=1)

    def refuse_to_write(step: str) -> None:
        if step == "slot prepared":
            raise OSError(28, "No space left on device")

    highest = version_of(releases[1])
    seen = {"highest_release": highest, "highest_timestamp": highest}
    before = kept.home.state()
    kept.home.change(lambda state: state.model_copy(update=seen))
    assert kept.updater(now=back).check().kind is Kind.WAITING
    assert kept.delivery.fetched == []
    kept.home.change(lambda state: before)
    with pytest.raises(UpdateError, match="No space left on device; what runs goes on running"):
        kept.updater(now=back, step=refuse_to_write).check()
    # What was taken as evidence once goes on: else no interrupted download would ever end without a clock.
    result = kept.updater(now=back).check()
    assert result.kind is Kind.KEPT
    assert "no clock, its newer signed timestamp is the evidence of the time" in result.detail
    assert kept.home.state().seen == before.seen


def test_a_clock_set_back_can_not_bring_an_expired_release_to_life(device: Device, releases: Releases) -> None:
    now = datetime.now(UTC)
    device.home.change(lambda state: state.model_copy(update={"seen": (now + timedelta(days=300)).timestamp()}))
    with pytest.raises(ReleaseError, match="expired on"):
        device.updater(now=lambda: now).check()
    assert device.running() is None
