"""A lab: a server and four devices of three classes, with their memory and CPU, and a federation on them."""

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.lab.boards import BOARDS
from deploy.lab.commands import lab as commands
from deploy.lab.engine import Engine, connect
from fedstill.errors import ConfigError

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]
NAME = "test"
FLEET = {"pi5": 1, "pi4": 1, "zero2w": 2}
RUNS = "/var/lib/fedstill/server/runs"
SETTINGS = (
    "rounds=2",
    "partition.alpha=5",
    "exchange.per_round=200",
    "teacher.update.epochs=1",
    "device.first_digest.epochs=2",
    "device.digest.epochs=1",
    "device.revisit.epochs=2",
    "students.distil.epochs=16",
    "central.fit.epochs=1",
    "device_classes.zero2w.learner=head",
)
POST = """
import http.client, socket, ssl, sys
context = ssl.create_default_context(cafile="/var/lib/fedstill/device/ca.crt")
connection = http.client.HTTPSConnection("fedstill-test-server", 8443, timeout=60, context=context)
connection.request("POST", sys.argv[1], b"", {"Content-Type": "application/protobuf"})
print(connection.getresponse().status)
with socket.socket() as direct:
    print("refused" if direct.connect_ex(("fedstill-test-server", 8000)) else "open")
"""


def settings() -> list[str]:
    return [part for change in SETTINGS for part in ("--set", change)]


def say(*arguments: str) -> str:
    """Run a command of the lab and return what it printed."""
    done = CliRunner().invoke(commands, [*arguments, "--name", NAME], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def lab() -> Iterator[Engine]:
    try:
        engine = Engine(connect(), NAME)
    except ConfigError as error:
        pytest.skip(str(error))
    engine.remove()  # of a test that was killed
    try:
        say("up", *(f"{kind}={count}" for kind, count in FLEET.items()), *settings())
        yield engine
    finally:
        say("down")
        engine.client.close()


def named(lab: Engine, part: str) -> list[Any]:
    return [container for container in lab.containers() if part in container.name]


def test_a_federation_of_containers_on_real_digits(lab: Engine) -> None:
    (server,) = named(lab, "server")
    out = f"{RUNS}/lab"
    told = lab.run(server, "fedstill", "server", "run", "digits", "--out", out, *settings()).decode()
    assert "round 1: 4 answers" in told
    assert "round 2: 4 answers" in told
    chunks, _ = server.get_archive(f"{out}/summary.json")
    with tarfile.open(fileobj=BytesIO(b"".join(chunks))) as archive:
        content = archive.extractfile("summary.json")
        assert content is not None
        summary = json.loads(content.read())
    assert {name: facts["devices"] for name, facts in summary["device_classes"].items()} == FLEET
    assert summary["device_classes"]["zero2w"]["learner"] == "head"
    for facts in summary["device_classes"].values():
        assert facts["accuracy_released"] > 0.3  # of ten classes; chance is 0.1
        assert not facts["refused"]
    # No process was ended for want of memory, or anything else, and begun again.
    for kind in FLEET:
        for device in named(lab, f"-{kind}-"):
            assert b"ended with code" not in device.logs()
            assert device.attrs["State"]["OOMKilled"] is False


def test_each_device_has_the_limits_of_its_class(lab: Engine) -> None:
    cores = lab.client.info()["NCPU"]
    for kind, count in FLEET.items():
        devices = named(lab, f"-{kind}-")
        assert len(devices) == count
        for device in devices:
            limits = device.attrs["HostConfig"]
            assert limits["Memory"] == limits["MemorySwap"] == BOARDS[kind].memory_mb * 2**20
            assert limits["NanoCpus"] == min(BOARDS[kind].cpus, cores) * 1e9
            assert device.attrs["Config"]["User"] == "10001:10001"
    shown = say("status")
    assert "512 MB" in shown
    assert shown.count("running") == sum(FLEET.values()) + 2


def test_a_device_reaches_the_fleet_and_can_submit_no_run(lab: Engine) -> None:
    device = named(lab, "-zero2w-")[0]
    fleet, control = (
        lab.run(device, "python", "-c", POST, path).decode().split()
        for path in ("/v1/fleet/pull-messages", "/v1/control/start-run")
    )
    assert fleet == ["401", "refused"]
    assert control == ["404", "refused"]


def test_a_device_has_no_samples_but_its_own(lab: Engine) -> None:
    first, second = named(lab, "-zero2w-")
    shares = [lab.run(device, "ls", "/var/lib/fedstill/data").split() for device in (first, second)]
    assert shares[0] != shares[1]
    assert all(sum(name.startswith(b"device-") for name in share) == 1 for share in shares)


def test_a_second_lab_of_the_same_name_is_refused_and_leaves_the_first(lab: Engine) -> None:
    with pytest.raises(ConfigError, match="is up already"):
        say("up", "pi4=1")
    assert len(lab.containers()) == sum(FLEET.values()) + 2


def test_a_lab_that_can_not_start_leaves_nothing(lab: Engine) -> None:
    other = Engine(lab.client, "other")
    with pytest.raises(ConfigError, match="no-such-image is not here"):
        CliRunner().invoke(
            commands, ["up", "pi4=1", "--name", "other", "--device-image", "no-such-image"], catch_exceptions=False
        )
    assert other.containers() == []
    assert lab.client.networks.list(names=[other.network]) == []
