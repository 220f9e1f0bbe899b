import socket
import ssl
import stat
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
import typer
from cryptography import x509
from typer.testing import CliRunner

from fedstill.errors import ConfigError, DataError
from fedstill.invitation import Invitation
from server.commands import register
from server.deployment import commands
from server.deployment.bundle import write_bundle
from server.deployment.certificates import fingerprint
from server.deployment.commands import seconds_of
from server.deployment.home import ServerHome
from server.deployment.programs import programs
from server.enrolment.registry import Registry


def fedstill(*arguments: str) -> str:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fedstill("server", "init", "--host", "fl.example.org", "--home", str(tmp_path / "server"))
    return tmp_path / "server"


def test_a_new_server_keeps_its_private_files_to_itself(home: Path) -> None:
    for name in ("ca.key", "server.key", "superexec.secret"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    config = ServerHome(home).config()
    assert (config.superlink, config.control, config.listen) == ("fl.example.org:8000", "127.0.0.1:8000", "127.0.0.1")


def test_its_certificate_holds_for_its_name_and_for_this_machine(home: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server.crt", home / "server.key")
    server, authority = x509.load_pem_x509_certificates((home / "server.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_process_that_there_is_not_is_no_container(home: Path) -> None:
    with pytest.raises(ConfigError, match="--only proxy: no such process; there are superlink, superexec, enrolment"):
        fedstill("server", "start", "--only", "proxy", "--home", str(home))


def test_a_server_is_not_made_over_another_one(home: Path) -> None:
    with pytest.raises(ConfigError, match="something is here already"):
        fedstill("server", "init", "--host", "fl.example.org", "--home", str(home))


@pytest.mark.parametrize(
    "host", ["", "https://fl.example.org", "fl.example.org/x", "fl.example.org:443", "a b", "-x", "fl.exämple.org"]
)
def test_a_host_is_a_name_and_no_url(host: str, tmp_path: Path, home: Path) -> None:
    with pytest.raises(ConfigError, match="not a name or an address"):
        fedstill("server", "init", f"--host={host}", "--home", str(tmp_path / "other"))
    before = (home / "server.crt").read_bytes()
    with pytest.raises(ConfigError, match="not a name or an address"):
        fedstill("server", "certificate", "--renew", f"--host={host}", "--home", str(home))
    assert (home / "server.crt").read_bytes() == before


def test_a_host_may_have_as_long_a_name_as_clouds_give(tmp_path: Path) -> None:
    host, home = "ec2-203-0-113-25.ap-southeast-2.compute.amazonaws.com", tmp_path / "server"
    fedstill("server", "init", "--host", host, "--home", str(home))
    fedstill("server", "certificate", "--renew", "--home", str(home))
    server, authority = x509.load_pem_x509_certificates((home / "server.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert host in names.get_values_for_type(x509.DNSName)


def test_a_server_may_have_an_address_of_version_6_and_a_folder_that_was_there(tmp_path: Path) -> None:
    home = tmp_path / "server"
    home.mkdir(mode=0o755)
    fedstill("server", "init", "--host", "fd00::1", "--listen", "::1", "--home", str(home))
    config = ServerHome(home).config()
    assert (config.superlink, config.control) == ("[fd00::1]:8000", "[::1]:8000")
    found = Invitation.decode(fedstill("server", "token", "--class", "pi4", "--home", str(home)))
    assert found.place == ("fd00::1", 8001)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


class Nodes:
    """Plays the control API: knows who is registered, refuses while it is down and whoever is not there."""

    registered: ClassVar[set[int]] = set()
    down: ClassVar[bool] = False

    def __init__(self, home: ServerHome) -> None:
        self.home = home

    def nodes(self) -> dict[int, str]:
        return dict.fromkeys(self.registered, "online")

    def node_of(self, key: str) -> int | None:
        return None

    def unregister(self, node: int) -> None:
        if self.down or node not in self.registered:
            raise ConfigError("the SuperLink did not do it")
        self.registered.remove(node)


def test_a_revocation_that_failed_half_way_counts_and_can_be_done_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "Control", Nodes)
    registry = Registry(home / "fleet.db")
    device = registry.admit(registry.invite("pi4", 60), "key").number
    registry.registered(device, 7)
    Nodes.registered, Nodes.down = {7}, True
    with pytest.raises(ConfigError, match="did not do it"):
        fedstill("server", "revoke", str(device), "--home", str(home))
    assert registry.fleet() == {}
    Nodes.down = False
    fedstill("server", "revoke", str(device), "--home", str(home))
    assert not Nodes.registered
    with pytest.raises(ConfigError, match="revoked already"):
        fedstill("server", "revoke", str(device), "--home", str(home))


def test_a_token_names_the_server_and_its_authority(home: Path) -> None:
    found = Invitation.decode(fedstill("server", "token", "--class", "pi4", "--home", str(home)))
    assert found.address == "fl.example.org:8001"
    assert found.authority == fingerprint((home / "ca.crt").read_bytes())


def test_a_class_that_is_not_built_in_is_warned_of_beside_the_token(home: Path) -> None:
    app = typer.Typer()
    register(app)
    for kind, warned in (("pi4", False), ("p4", True)):
        done = CliRunner().invoke(app, ["server", "token", "--class", kind, "--home", str(home)])
        assert Invitation.decode(done.stdout)
        assert (f"warning: class {kind} is not built in" in done.stderr) is warned


def test_a_run_takes_its_scenarios_data_from_a_folder(home: Path, tmp_path: Path) -> None:
    registry = Registry(home / "fleet.db")
    registry.registered(registry.admit(registry.invite("pi4", 60), "key").number, 7)
    with pytest.raises(DataError, match=rf"{tmp_path}/none/ylecun/mnist/mnist: no train-\*\.parquet there"):
        fedstill("server", "run", "mnist", "--data-dir", str(tmp_path / "none"), "--home", str(home))


def test_without_a_server_the_commands_say_how_to_make_one(tmp_path: Path) -> None:
    for command in (["start"], ["token", "--class", "pi4"], ["status"], ["drain"], ["run", "digits"], ["revoke", "0"]):
        with pytest.raises(ConfigError, match="fedstill server init"):
            fedstill("server", *command, "--home", str(tmp_path / "none"))


def test_a_server_that_is_not_up_is_drained_at_once_and_begins_no_run_until_that_is_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    home = ("--home", str(tmp_path / "server"))
    fedstill("server", "init", "--host", "fl.example.org", "--port", port, *home)
    assert "drained: no run is active" in " ".join(fedstill("server", "drain", *home).split())
    assert "not up; `fedstill server start`, draining" in " ".join(fedstill("server", "status", *home).split())
    with pytest.raises(ConfigError, match="the server drains"):
        fedstill("server", "run", "digits", *home)
    assert "may begin again" in fedstill("server", "drain", "--off", *home)
    with pytest.raises(ConfigError, match="no device is enrolled"):
        fedstill("server", "run", "digits", *home)


def test_the_superlink_asks_for_keys_and_starts_no_server_app_itself(home: Path) -> None:
    superlink, superexec, *_ = programs(ServerHome(home))
    assert "server.deployment.superlink" in superlink.command
    assert "--enable-supernode-auth" in superlink.command
    assert "--insecure" not in [*superlink.command, *superexec.command]
    assert superlink.command[superlink.command.index("--isolation") + 1] == "process"
    assert superlink.command[superlink.command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("7d", 604800)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1 week", "1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no duration"):
        seconds_of(text)


def test_the_app_that_a_run_sends_holds_no_code(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    assert [path.name for path in folder.rglob("*")] == ["pyproject.toml"]
    app = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
