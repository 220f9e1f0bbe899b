import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedstill.errors import ConfigError, DataError
from server.enrolment.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "fleet.db")


def test_a_token_makes_one_device_of_its_class_and_no_other(registry: Registry) -> None:
    secret = registry.invite("pi4", 60)
    member = registry.admit(secret, "key-a")
    assert (member.number, member.device_class, member.node) == (0, "pi4", None)
    assert registry.admit(secret, "key-a") == member  # whose first answer was lost
    with pytest.raises(ConfigError, match="used already"):
        registry.admit(secret, "key-b")


def test_unknown_and_expired_tokens_are_refused(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="unknown token"):
        registry.admit("guess", "key-a")
    expired = registry.invite("pi4", -1)
    with pytest.raises(ConfigError, match="expired"):
        registry.admit(expired, "key-a")
    assert registry.members() == []


def test_a_key_is_one_device_only(registry: Registry) -> None:
    registry.admit(registry.invite("pi4", 60), "key-a")
    with pytest.raises(ConfigError, match="enrolled already"):
        registry.admit(registry.invite("pi4", 60), "key-a")


def test_the_fleet_is_who_is_registered_and_not_revoked_and_no_number_is_given_twice(registry: Registry) -> None:
    for key in "abc":
        registry.admit(registry.invite("pi4", 60), key)
    assert registry.fleet() == {}
    registry.registered(0, 2**64 - 1)
    registry.registered(2, 5)
    assert registry.member(0).node == 2**64 - 1
    assert registry.fleet() == {0: "pi4", 2: "pi4"}
    assert {number: owner.node for number, owner in registry.owners().items()} == {0: 2**64 - 1, 2: 5}
    assert {number: owner.device_class for number, owner in registry.owners().items()} == registry.fleet()
    registry.revoked(2)
    assert registry.fleet() == {0: "pi4"}
    assert registry.admit(registry.invite("pi5", 60), "d").number == 3


def test_a_revoked_device_can_not_use_its_token_again(registry: Registry) -> None:
    secret = registry.invite("pi4", 60)
    registry.revoked(registry.admit(secret, "key-a").number)
    with pytest.raises(ConfigError, match="used already"):
        registry.admit(secret, "key-a")


def test_secrets_are_not_kept(registry: Registry, tmp_path: Path) -> None:
    secret = registry.invite("pi4", 60)
    registry.admit(secret, "key-a")
    with sqlite3.connect(tmp_path / "fleet.db") as database:
        assert secret not in "\n".join(database.iterdump())
    assert secret.encode() not in (tmp_path / "fleet.db").read_bytes()


def test_a_database_that_is_just_being_made_has_no_devices(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").touch()
    assert Registry(tmp_path / "fleet.db").members() == []


def test_a_device_that_is_not_there_is_told(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="no device 4"):
        registry.member(4)


def test_a_fleet_whose_writer_lost_its_power_can_be_listed_at_once(tmp_path: Path) -> None:
    registry, cut = Registry(tmp_path / "fleet.db"), tmp_path / "cut"
    registry.admit(registry.invite("pi4", 60), "key-a")
    with closing(sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE devices SET class = 'pi5'")
        rows = [(f"hash-{place}", "x" * 500, 0, None) for place in range(100)]
        database.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?)", rows)
        shutil.copytree(tmp_path, cut, ignore=shutil.ignore_patterns("cut"))
        database.execute("ROLLBACK")
    assert (cut / "fleet.db-journal").stat().st_size
    assert [member.device_class for member in Registry(cut / "fleet.db").members()] == ["pi4"]


def test_a_damaged_fleet_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"no database" * 100)
    for use in (Registry(tmp_path / "fleet.db").members, lambda: Registry(tmp_path / "fleet.db").invite("pi4", 60)):
        with pytest.raises(DataError, match=r"fleet\.db: the fleet can't be read or written: file is not a database"):
            use()
