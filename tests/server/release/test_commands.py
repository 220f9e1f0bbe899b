"""The `release` commands and the store, on small signed folders."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from fedstill.errors import ConfigError, ReleaseError
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE, MANIFEST
from fedstill.release.verify import METADATA, TIMESTAMP, Signed, verify_folder, verify_metadata
from server.delivery.catalogue import Catalogue, load
from server.release import store as store_module
from server.release.commands import register
from server.release.keys import Keys, open_keys
from server.release.store import publish, renew

Make = Callable[..., Path]
app = typer.Typer()
register(app)


@app.callback()
def _root() -> None:
    pass


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "keys")


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}-{id(request)}"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["release", *map(str, arguments)])


def test_verify_ends_with_0_for_a_good_release_and_1_with_the_reason_for_another(
    tmp_path: Path, keys: Keys, make: Make
) -> None:
    folder = make(tmp_path / "release", keys)
    good = run("verify", folder, "--keys", keys.folder)
    assert (good.exit_code, good.output.startswith("good: pi5, version 1, digits")) == (0, True)
    assert run("verify", folder, "--root", keys.folder / "root.json").exit_code == 0
    (folder / INT8_FILE).write_bytes(b"mod3l")
    bad = run("verify", folder, "--keys", keys.folder)
    assert bad.exit_code == 1
    assert bad.output.strip() == "fedstill: refused: student.onnx: not the file that was signed"


def test_verify_trusts_the_installation_and_no_root_in_the_folder(tmp_path: Path, keys: Keys, make: Make) -> None:
    other = open_keys(tmp_path / "other")
    folder = make(tmp_path / "release", other)
    (folder / "root.json").write_bytes(other.trust.content)
    result = run("verify", folder, "--keys", keys.folder)
    assert result.exit_code == 1
    assert "ships no root" in result.output
    (folder / "root.json").unlink()
    assert "does not name" in run("verify", folder, "--keys", keys.folder).output
    assert run("verify", folder, "--root", other.folder / "root.json").exit_code == 0


def test_the_installed_command_ends_with_0_1_or_2(tmp_path: Path, keys: Keys, make: Make) -> None:
    folder = make(tmp_path / "release", keys)
    command = [str(Path(sys.executable).parent / "fedstill"), "release", "verify", "--keys", str(keys.folder)]

    def code(place: Path) -> int:
        return subprocess.run([*command, str(place)], capture_output=True, timeout=120, check=False).returncode

    assert (code(folder), code(tmp_path / "none")) == (0, 2)
    (folder / INT8_FILE).write_bytes(b"mod3l")
    assert code(folder) == 1


@pytest.mark.parametrize("wrong", ["folder", "root", "keys", "no root"])
def test_wrong_use_is_no_verdict_about_a_release_and_makes_no_keys(
    wrong: str, tmp_path: Path, keys: Keys, make: Make
) -> None:
    folder = make(tmp_path / "release", keys)
    arguments = {
        "folder": (tmp_path / "none", "--keys", keys.folder),
        "root": (folder, "--root", tmp_path / "none"),
        "keys": (folder, "--keys", tmp_path / "none"),
        "no root": (folder, "--root", folder / MANIFEST),
    }[wrong]
    # The command line turns these into one line and exit code 2.
    assert isinstance(run("verify", *arguments).exception, ConfigError)
    assert not (tmp_path / "none").exists()


def test_the_commands_load_without_what_only_the_server_has() -> None:
    code = (
        "import sys, server.release.commands;"
        "print([name for name in ('torch', 'onnx', 'onnxscript', 'fsspec', 'flwr', 'grpc') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_keys_shows_makes_and_rotate_replaces_them(tmp_path: Path) -> None:
    shown = run("keys", "--keys", tmp_path / "own")
    assert "version 1" in shown.output
    assert "timestamp: 1 of" in shown.output
    rotated = run("rotate", "root", "--count", "3", "--threshold", "2", "--keys", tmp_path / "own")
    assert rotated.output == "rotated root: root version 2\n"
    assert "root: 2 of" in run("keys", "--keys", tmp_path / "own").output
    assert isinstance(run("rotate", "rot", "--keys", tmp_path / "own").exception, ConfigError)
    assert isinstance(run("rotate", "root", "--keys", tmp_path / "none").exception, ConfigError)


def test_sign_takes_a_release_over_to_new_keys(tmp_path: Path, keys: Keys, make: Make) -> None:
    folder = make(tmp_path / "release", keys)
    run("rotate", "targets", "--keys", keys.folder)
    assert run("sign", folder, "--keys", keys.folder).exit_code == 1
    earlier = keys.folder / "roots" / "1.root.json"
    assert run("sign", folder, "--root", earlier, "--keys", keys.folder).output == "signed: pi5, version 2\n"
    assert run("verify", folder, "--keys", keys.folder).exit_code == 0


def verified(keys: Keys, timestamp: bytes, snapshot: bytes, targets: bytes, now: datetime) -> Signed:
    return verify_metadata(keys.trust, timestamp, snapshot, targets, now)


def files(url: str) -> dict[str, bytes]:
    system, root = fsspec.core.url_to_fs(url)
    return {str(path).removeprefix(root).lstrip("/"): system.cat_file(path) for path in system.find(root)}


def test_a_store_holds_complete_releases_and_all_roots(url: str, tmp_path: Path, keys: Keys, make: Make) -> None:
    publish(make(tmp_path / "a", keys), url, keys)
    keys.rotate("root")
    publish(make(tmp_path / "b", keys), url, keys)
    publish(make(tmp_path / "c", keys, "mcu"), url, keys)
    found = files(url)
    inside = {INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA}
    assert set(found) == {
        *(f"pi5/{version}/{name}" for version in (1, 2) for name in inside),
        *(f"mcu/1/{name}" for name in inside),
        *(f"{name}/{TIMESTAMP}" for name in ("pi5", "mcu")),
        "roots/1.root.json",
        "roots/2.root.json",
    }
    newest = (found["pi5/timestamp.json"], found["pi5/2/snapshot.json"], found["pi5/2/targets.json"])
    assert verified(keys, *newest, datetime.now(UTC)).version == 2


def test_what_is_not_newer_is_not_published(url: str, tmp_path: Path, keys: Keys, make: Make) -> None:
    old, new = make(tmp_path / "old", keys), make(tmp_path / "new", keys)
    publish(new, url, keys)
    before = files(url)
    for folder in (old, new):
        with pytest.raises(ReleaseError, match="is not newer than version 2"):
            publish(folder, url, keys)
    assert files(url) == before


def test_what_is_not_good_is_not_published(url: str, tmp_path: Path, keys: Keys, make: Make) -> None:
    folder = make(tmp_path / "release", keys)
    (folder / "more").write_bytes(b"")
    with pytest.raises(ReleaseError, match="not part of"):
        publish(folder, url, keys)
    assert files(url) == {}


def test_the_timestamp_is_the_last_file_so_that_an_interrupted_publication_shows_nothing(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    url, first, second = str(tmp_path / "store"), make(tmp_path / "a", keys), make(tmp_path / "b", keys)
    publish(first, url, keys)
    whole = store_module.Store.write
    left = 0

    def until(self: store_module.Store, name: str, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        whole(self, name, content)

    steps = 8  # six files, one root, the timestamp
    for left in range(steps):  # noqa: B007  (counted down inside)
        monkeypatch.setattr(store_module.Store, "write", until)
        with pytest.raises(KeyboardInterrupt):
            publish(second, url, keys)
        assert files(url)["pi5/timestamp.json"] == (first / TIMESTAMP).read_bytes()
        offered = load(store_module.Store(url), Catalogue(), lambda name: ()).offers
        assert [list(versions) for versions in offered.values()] == [[1]]
    monkeypatch.setattr(store_module.Store, "write", whole)
    assert publish(second, url, keys).version == 2


def test_renewing_gives_a_newer_timestamp_and_the_next_release_is_newer_still(
    url: str, tmp_path: Path, keys: Keys, make: Make
) -> None:
    publish(make(tmp_path / "a", keys), url, keys)
    signed_before = make(tmp_path / "b", keys)
    (renewed,) = renew(url, keys, days=1)
    assert (renewed.version, renewed.timestamp_version) == (1, 3)
    with pytest.raises(ReleaseError, match="sign it again"):
        publish(signed_before, url, keys)
    found = files(url)
    parts = (found["pi5/timestamp.json"], found["pi5/1/snapshot.json"], found["pi5/1/targets.json"])
    verified(keys, *parts, datetime.now(UTC))
    with pytest.raises(ReleaseError, match=r"timestamp\.json: expired"):
        verified(keys, *parts, datetime.now(UTC) + timedelta(days=2))
    assert publish(make(tmp_path / "c", keys), url, keys).version == 4


def test_renewing_keeps_older_releases_fresh_with_older_timestamps(
    url: str, tmp_path: Path, keys: Keys, make: Make
) -> None:
    for name in ("a", "b", "c"):
        publish(make(tmp_path / name, keys), url, keys)
    (renewed,) = renew(url, keys, days=400)
    found, later = files(url), datetime.now(UTC) + timedelta(days=399)
    stamped = []
    for version in (1, 2, 3):
        timestamp, snapshot, targets = (found[f"pi5/{version}/{name}"] for name in METADATA)
        signed = verified(keys, timestamp, snapshot, targets, later)
        assert signed.version == version
        stamped.append(signed.timestamp_version)
    assert stamped == sorted(stamped) == [4, 5, 6]
    assert renewed.timestamp_version == 6
    assert found["pi5/timestamp.json"] == found["pi5/3/timestamp.json"]


def test_renewing_leaves_older_releases_of_replaced_keys_as_they_are(
    url: str, tmp_path: Path, keys: Keys, make: Make
) -> None:
    publish(make(tmp_path / "a", keys), url, keys)
    keys.rotate("targets")
    publish(make(tmp_path / "b", keys), url, keys)
    before = files(url)["pi5/1/timestamp.json"]
    (renewed,) = renew(url, keys, days=1)
    assert renewed.version == 2
    assert files(url)["pi5/1/timestamp.json"] == before


def test_a_store_of_somebody_else_is_left_alone(url: str, tmp_path: Path, keys: Keys, make: Make) -> None:
    other = open_keys(tmp_path / "other")
    publish(make(tmp_path / "a", other), url, other)
    with pytest.raises(ReleaseError, match="not of this installation"):
        publish(make(tmp_path / "b", keys), url, keys)
    with pytest.raises(ReleaseError, match="does not name"):
        renew(url, keys, days=1)
    before = files(url)
    with pytest.raises(ReleaseError, match="its root version 1 is another one"):
        publish(make(tmp_path / "c", keys, "mcu"), url, keys)
    assert files(url) == before


def test_after_a_rotation_the_release_signed_again_is_published(
    url: str, tmp_path: Path, keys: Keys, make: Make
) -> None:
    folder = make(tmp_path / "a", keys)
    publish(folder, url, keys)
    earlier = keys.folder / "roots" / "1.root.json"
    for role in ("timestamp", "targets"):
        keys.rotate(role)
    assert run("sign", folder, "--root", earlier, "--keys", keys.folder).exit_code == 0
    assert run("publish", folder, url, "--keys", keys.folder).exit_code == 0
    assert run("renew", url, "--days", "3", "--keys", keys.folder).output.startswith("renewed: pi5, version 2")


def test_stores_that_cannot_be_used_are_one_clear_line(tmp_path: Path, keys: Keys, make: Make) -> None:
    folder = make(tmp_path / "release", keys)
    (tmp_path / "file").write_text("")
    for url, reason in (("nosuch://x", "nosuch"), (str(tmp_path / "file"), "file")):
        with pytest.raises(ConfigError, match=reason):
            publish(folder, url, keys)
    with pytest.raises(ConfigError, match="no release here"):
        renew(str(tmp_path / "empty"), keys, 1)
    assert {path.name for path in folder.iterdir()} == {INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA}
    verify_folder(folder, keys.trust, datetime.now(UTC))
