"""Signing and verification: whatever is changed in a release, it is refused."""

import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedstill.errors import ConfigError, ReleaseError
from fedstill.release.manifest import FLOAT_FILE, INT8_FILE, MANIFEST, Description, Parent
from fedstill.release.trust import Trust
from fedstill.release.verify import METADATA, TARGETS, TIMESTAMP, verify_folder
from server.release.keys import Keys, open_keys
from server.release.sign import sign_again, sign_folder

Make = Callable[..., Path]
NOW = datetime.now(UTC)
PARENT = Parent(run="run", scenario="digits", seed=0, rounds=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return open_keys(tmp_path_factory.mktemp("sign") / "keys")


@pytest.fixture
def folder(tmp_path: Path, keys: Keys, make: Make) -> Path:
    return make(tmp_path / "release", keys)


def refused(folder: Path, trust: Trust, reason: str | None = None) -> None:
    with pytest.raises(ReleaseError, match=reason):
        verify_folder(folder, trust, NOW)


def test_a_signed_folder_is_good_and_its_versions_grow(folder: Path, keys: Keys, tmp_path: Path, make: Make) -> None:
    manifest, signed = verify_folder(folder, keys.trust, NOW)
    assert {path.name for path in folder.iterdir()} == {INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA}
    assert manifest.version == signed.version == signed.timestamp_version
    assert manifest.parent == PARENT
    later, _ = verify_folder(make(tmp_path / "later", keys), keys.trust, NOW)
    assert later.version == manifest.version + 1


def test_a_limit_that_is_not_set_is_not_named_so_that_older_devices_can_read_the_rest(folder: Path) -> None:
    told = json.loads((folder / MANIFEST).read_text())
    assert None not in told["budget"].values()


def test_metadata_are_small(folder: Path) -> None:
    assert sum((folder / name).stat().st_size for name in METADATA) < 3000


@pytest.mark.parametrize("name", [INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA])
def test_one_flipped_byte_anywhere_is_refused(name: str, folder: Path, keys: Keys) -> None:
    path, trust = folder / name, keys.trust
    content = path.read_bytes()
    rng = random.Random(name)
    places = range(len(content)) if name in METADATA else sorted(rng.sample(range(len(content)), 100))
    for place in (0, *places, len(content) - 1):
        # A flipped bit 5 changes the case of a letter, which hexadecimal and JSON's escapes would forgive.
        flip = rng.choice([1, 2, 4, 8, 16, 32, 32, 64, 128, 255])
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        refused(folder, trust)
    path.write_bytes(content)
    verify_folder(folder, trust, NOW)


@pytest.mark.parametrize("name", [INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\n",
        lambda content: content + content,
        lambda content: b" " + content,
    ],
)
def test_a_cut_or_longer_file_is_refused(name: str, change: Callable[[bytes], bytes], folder: Path, keys: Keys) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    refused(folder, keys.trust, name)


@pytest.mark.parametrize("name", [INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA])
def test_a_missing_file_is_refused(name: str, folder: Path, keys: Keys) -> None:
    (folder / name).unlink()
    refused(folder, keys.trust, f"{name}: missing")


def test_an_unlisted_file_is_refused_hidden_or_not(folder: Path, keys: Keys) -> None:
    for name in ("extra.onnx", ".hidden"):
        (folder / name).write_bytes(b"x")
        refused(folder, keys.trust, "not part of the signed release")
        (folder / name).unlink()
    (folder / "more").mkdir()
    refused(folder, keys.trust, "more: not a plain file")


def test_a_link_to_the_very_same_content_is_refused(folder: Path, keys: Keys, tmp_path: Path) -> None:
    (folder / INT8_FILE).rename(tmp_path / "elsewhere")
    (folder / INT8_FILE).symlink_to(tmp_path / "elsewhere")
    refused(folder, keys.trust, "not a plain file")


def test_a_root_in_the_folder_is_refused_even_the_right_one(folder: Path, keys: Keys) -> None:
    (folder / "root.json").write_bytes(keys.trust.content)
    refused(folder, keys.trust, "ships no root")


def test_a_release_of_other_keys_is_refused(tmp_path: Path, keys: Keys, make: Make) -> None:
    other = open_keys(tmp_path / "other")
    made = make(tmp_path / "release", other)
    verify_folder(made, other.trust, NOW)
    refused(made, keys.trust, "does not name for timestamp")


def test_any_mix_of_two_releases_is_refused(tmp_path: Path, keys: Keys, make: Make) -> None:
    first, second = make(tmp_path / "a", keys), make(tmp_path / "b", keys, content=b"newer")
    names = [INT8_FILE, FLOAT_FILE, MANIFEST, *METADATA]
    for choice in range(1, 2 ** len(names) - 1):
        mixed = tmp_path / f"mix-{choice}"
        mixed.mkdir()
        for place, name in enumerate(names):
            shutil.copy((second if choice >> place & 1 else first) / name, mixed / name)
        refused(mixed, keys.trust)


def test_metadata_of_another_class_do_not_pass(tmp_path: Path, keys: Keys, make: Make) -> None:
    first, second = make(tmp_path / "a", keys), make(tmp_path / "b", keys, "mcu")
    shutil.copy(second / TIMESTAMP, first / TIMESTAMP)
    refused(first, keys.trust)
    assert verify_folder(second, keys.trust, NOW)[1].device_class == "mcu"


def test_expired_metadata_are_refused_from_the_first_to_expire(folder: Path, keys: Keys) -> None:
    for days, reason in ((181, "timestamp.json: expired"), (731, "timestamp.json: expired"), (4000, "trusted root")):
        with pytest.raises(ReleaseError, match=reason):
            verify_folder(folder, keys.trust, NOW + timedelta(days=days))
    verify_folder(folder, keys.trust, None)


def test_an_older_version_than_what_is_known_is_a_replay(folder: Path, keys: Keys) -> None:
    _, signed = verify_folder(folder, keys.trust, NOW)
    at_least = (signed.version, signed.timestamp_version)
    verify_folder(folder, keys.trust, NOW, at_least)
    for known in ((at_least[0] + 1, 0), (0, at_least[1] + 1)):
        with pytest.raises(ReleaseError, match="an old release is replayed"):
            verify_folder(folder, keys.trust, NOW, known)


def test_a_surplus_signature_that_is_wrong_is_refused(folder: Path, keys: Keys, tmp_path: Path, make: Make) -> None:
    other = make(tmp_path / "other", open_keys(tmp_path / "other-keys"))
    content = json.loads((folder / TIMESTAMP).read_text())
    content["signatures"] += json.loads((other / TIMESTAMP).read_text())["signatures"]
    content["signatures"].sort(key=lambda found: found["keyid"])
    (folder / TIMESTAMP).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    refused(folder, keys.trust, "does not name for timestamp")


@pytest.mark.parametrize("name", METADATA)
def test_a_field_outside_of_what_is_signed_is_refused(name: str, folder: Path, keys: Keys) -> None:
    content = json.loads((folder / name).read_text())
    content["unsigned"] = 1
    (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    refused(folder, keys.trust, name)


@pytest.mark.parametrize(
    "content", [b"null", b"[]", b"{}", b'{"signed": {}, "signatures": []}', b"\xff", b"[" * 5000, b"1e999"]
)
def test_metadata_that_are_none_are_refused(content: bytes, folder: Path, keys: Keys) -> None:
    (folder / TIMESTAMP).write_bytes(content)
    refused(folder, keys.trust, "damaged")


def test_endless_metadata_are_refused(folder: Path, keys: Keys) -> None:
    (folder / TARGETS).write_bytes(b" " * 600_000)
    refused(folder, keys.trust)
    (folder / TIMESTAMP).write_bytes(b" " * 600_000)
    refused(folder, keys.trust, "longer than")


def test_too_few_signatures_are_refused(tmp_path: Path, make: Make) -> None:
    keys = open_keys(tmp_path / "keys")
    keys.rotate("timestamp", count=2, threshold=2)
    made = make(tmp_path / "release", keys)
    verify_folder(made, keys.trust, NOW)
    content = json.loads((made / TIMESTAMP).read_text())
    assert len(content["signatures"]) == 2
    del content["signatures"][0]
    (made / TIMESTAMP).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    refused(made, keys.trust, "1 of 2 signatures")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_replaced_keys_signed_is_refused_until_it_is_signed_again(role: str, tmp_path: Path, make: Make) -> None:
    keys = open_keys(tmp_path / "keys")
    made = make(tmp_path / "release", keys)
    earlier = keys.trust
    keys.rotate(role)
    refused(made, keys.trust, "does not name")
    with pytest.raises(ReleaseError, match="does not name"):
        sign_again(made, keys.trust, keys)
    again = sign_again(made, earlier, keys)
    assert again.version == 2
    assert verify_folder(made, keys.trust, NOW)[0] == again


def test_signing_again_does_not_bless_a_changed_model(folder: Path, keys: Keys) -> None:
    (folder / INT8_FILE).write_bytes(b"other")
    with pytest.raises(ReleaseError, match="not the file that was signed"):
        sign_again(folder, keys.trust, keys)


def test_models_that_changed_since_their_verification_are_not_signed(
    tmp_path: Path, keys: Keys, make: Make, describe: Callable[..., Description]
) -> None:
    made = make(tmp_path / "release", keys)
    description = describe(made)
    (made / INT8_FILE).write_bytes(b"other")
    with pytest.raises(ReleaseError, match="other models than those that were verified"):
        sign_folder(made, description, PARENT, keys)
    refused(made, keys.trust, f"{INT8_FILE}: not the file that was signed")


def test_signing_needs_the_private_keys(tmp_path: Path, make: Make) -> None:
    keys = open_keys(tmp_path / "keys")
    next(keys.folder.glob("snapshot-*.pem")).unlink()
    with pytest.raises(ConfigError, match="0 of 1 private keys of snapshot"):
        make(tmp_path / "release", keys)
    refused(tmp_path / "release", keys.trust, "missing")


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_signing_again_without_a_key_costs_the_release_nothing(role: str, tmp_path: Path, make: Make) -> None:
    keys = open_keys(tmp_path / "keys")
    made = make(tmp_path / "release", keys)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    (private,) = keys.folder.glob(f"{role}-*.pem")
    private.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        sign_again(made, keys.trust, keys)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    private.chmod(0o600)
    assert sign_again(made, keys.trust, keys) == verify_folder(made, keys.trust, NOW)[0]
