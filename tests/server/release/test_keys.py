import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedstill.errors import ConfigError, ReleaseError
from fedstill.files import write_atomic
from fedstill.release.trust import Trust
from server.release.home import default_folder
from server.release.keys import ROLES, ROOT, Keys, open_keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "keys")


def test_private_files_are_for_their_owner_alone(keys: Keys) -> None:
    private = list(keys.folder.glob("*.pem"))
    assert len(private) == len(ROLES)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700


def test_keys_are_made_once_even_by_two_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: open_keys(tmp_path / "keys").trust.content, range(4)))
    assert len(set(roots)) == 1
    assert len(list((tmp_path / "keys").glob("*.pem"))) == len(ROLES)


def test_a_key_folder_without_a_root_begins_anew(keys: Keys) -> None:
    (keys.folder / ROOT).unlink()
    assert open_keys(keys.folder).trust.version == 1


def test_versions_only_grow_and_are_of_each_class(keys: Keys) -> None:
    assert [keys.next_version("pi5") for _ in range(3)] == [1, 2, 3]
    assert keys.next_version("mcu") == 1
    assert open_keys(keys.folder).next_version("pi5") == 4


@pytest.mark.parametrize("role", ROLES)
def test_rotation_replaces_the_keys_of_one_role(role: str, keys: Keys) -> None:
    before = keys.trust.root.signed
    after = keys.rotate(role).root.signed
    for other in ROLES:
        assert (after.roles[other].keyids == before.roles[other].keyids) is (other != role)
    assert {path.name for path in keys.folder.glob("*.pem")} == {
        f"{name}-{keyid}.pem" for name in ROLES for keyid in after.roles[name].keyids
    }


def test_whoever_trusts_an_old_root_follows_to_the_newest(keys: Keys) -> None:
    keys.rotate("root", count=3, threshold=2)
    keys.rotate("targets")
    keys.rotate("root")
    roots = keys.roots()
    trust = Trust.load(roots["1.root.json"])
    for version in (2, 3, 4):
        trust = trust.follow(roots[f"{version}.root.json"])
    assert trust.content == keys.trust.content
    with pytest.raises(ReleaseError, match="holds version 3"):
        Trust.load(roots["1.root.json"]).follow(roots["3.root.json"])


def test_a_rotation_that_broke_off_is_never_given_away(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, content: bytes) -> None:
        if path.name == "root.json":
            raise KeyboardInterrupt
        write_atomic(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("server.release.keys.write_atomic", broken)
        with pytest.raises(KeyboardInterrupt):
            keys.rotate("targets")
    assert list(keys.roots()) == ["1.root.json"]
    assert keys.rotate("targets").version == 2
    assert list(keys.roots()) == ["1.root.json", "2.root.json"]
    assert keys.roots()["2.root.json"] == keys.trust.content


def test_a_root_of_another_installation_is_not_followed(keys: Keys, tmp_path: Path) -> None:
    other = open_keys(tmp_path / "other")
    other.rotate("targets")
    with pytest.raises(ReleaseError, match="0 of 1 signatures that the trusted root"):
        keys.trust.follow(other.roots()["2.root.json"])


def test_a_threshold_needs_that_many_private_keys(keys: Keys) -> None:
    keys.rotate("root", count=3, threshold=2)
    files = sorted(keys.folder.glob("root-*.pem"))
    files[0].unlink()
    keys.rotate("targets")
    files[1].unlink()
    with pytest.raises(ConfigError, match=r"1 of 2 private keys of root are here; missing: .*root-"):
        keys.rotate("targets")


def test_a_threshold_above_the_number_of_keys_is_refused(keys: Keys) -> None:
    with pytest.raises(ConfigError, match="threshold 2 is not between 1 and"):
        keys.rotate("root", count=1, threshold=2)


def test_a_private_key_open_to_others_is_not_used(keys: Keys) -> None:
    (path,) = keys.folder.glob("root-*.pem")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others; chmod 600"):
        keys.rotate("targets")


def test_a_damaged_root_is_one_clear_line(keys: Keys) -> None:
    content = (keys.folder / ROOT).read_bytes()
    (keys.folder / ROOT).write_bytes(content.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(ConfigError, match=r"root\.json: the signature of key .* is wrong"):
        open_keys(keys.folder)


def test_the_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDSTILL_KEYS", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.delenv("FEDSTILL_KEYS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder() == tmp_path / "data" / "fedstill" / "keys"


def test_a_folder_that_cannot_hold_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="signing keys can't be kept here"):
        open_keys(tmp_path / "file" / "keys")
