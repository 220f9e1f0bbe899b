"""Bring a lab up: server and proxy, then for each device its own data, a token, and a container of its class's size."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.lab.boards import BOARDS
from deploy.lab.emulation import default_folder
from deploy.lab.emulation import options as emulation
from deploy.lab.engine import Engine, told
from fedstill.device_classes import BUDGETS
from fedstill.errors import ConfigError

PORT = 8443
"""Of the proxy."""
STATE = "/var/lib/fedstill"
SPLIT = f"{STATE}/data/lab"
EMULATION = "fedstill.emulation"
"""Label of a container whose image is for another processor."""
MIN_SHARES = len(BUDGETS)
"""A scenario deals its samples to one device of each of its classes at least."""
PATIENCE = 300.0  # seconds for a process to be there; a busy machine starts slowly
EMULATED = 6  # times as patient with a device under emulation
POLL = 2.0
SERVE = f'fedstill server init --host "$HOST" --public-port {PORT} && exec fedstill server start'
# A container that starts again is enrolled already.
TAKE_PART = (
    'test -e "$FEDSTILL_HOME/device.toml" || fedstill client enroll "$TOKEN" --data "$DATA" || exit 2'
    "; exec fedstill client start"
)


@dataclass(frozen=True)
class Images:
    """What the containers are made of.

    Attributes:
        server: SuperLink, superexec, enrolment.
        proxy: what devices reach of them.
        device: agent and SuperNode, with torch.
        small: the same without torch, for boards that it doesn't fit.
    """

    server: str
    proxy: str
    device: str
    small: str

    def of(self, kind: str) -> str:
        """Return the image of a class's devices."""
        return self.device if BOARDS[kind].torch else self.small


def up(
    engine: Engine,
    fleet: Sequence[str],
    images: Images,
    scenario: str,
    changes: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Start a server and its devices, and return when all are enrolled and running.

    Args:
        engine: where.
        fleet: class of each device.
        images: what the containers are made of.
        scenario: whose private samples are dealt to the devices.
        changes: assignments of its keys, such as `partition.alpha=5`.
        say: told what was done.

    Raises:
        ConfigError: the lab is there already, an image is missing, or something does not start; nothing is left then.
    """
    if engine.containers():
        raise ConfigError("this lab is up already; `fedstill lab status` shows it, `fedstill lab down` ends it")
    for image in (images.server, images.proxy, *map(images.of, fleet)):
        engine.check_image(image)
    try:
        engine.open_network()
        server = _server(engine, images)
        say(f"server: {server.name}")
        settings = [
            part for change in (*changes, f"devices={max(len(fleet), MIN_SHARES)}") for part in ("--set", change)
        ]
        engine.run(server, "fedstill", "split", scenario, SPLIT, *settings)
        devices = [_device(engine, server, images.of(kind), number, kind) for number, kind in enumerate(fleet)]
        for device in devices:
            _until_well(engine, device, "device")
            say(f"device: {device.name}, {describe(device)}")
    except BaseException:
        engine.remove()
        raise


def _server(engine: Engine, images: Images) -> Any:
    name = engine.prefix + "server"
    server = engine.create(
        "server", images.server, ["sh", "-c", SERVE], network=engine.network, environment={"HOST": name}
    )
    with told():
        server.start()
    for part in ("superlink", "enrolment", "delivery"):
        _until_well(engine, server, part)
    # The control API stays on the loopback address that the two share; what devices reach is the proxy.
    proxy = engine.create("proxy", images.proxy, ["nginx", "-g", "daemon off;"], network_mode=f"container:{server.id}")
    certificates = engine.run(server, "tar", "-c", "-C", f"{STATE}/server", "ca.crt", "server.crt", "server.key")
    with told():
        proxy.put_archive("/etc/fedstill/tls", certificates)
        proxy.start()
    return server


def _device(engine: Engine, server: Any, image: str, number: int, kind: str) -> Any:
    board, data = BOARDS[kind], f"{STATE}/data"
    token = engine.run(server, "fedstill", "server", "token", "--class", kind, "--expires", "1h").decode().strip()
    with told():
        machine = engine.client.info()
    foreign = dict(emulation(image, engine.architecture(image), str(machine["Architecture"]), kind, default_folder()))
    device = engine.create(
        f"{kind}-{number}",
        image,
        ["sh", "-c", TAKE_PART],
        network=engine.network,
        labels={"fedstill.class": kind, **({EMULATION: "arm64"} if foreign else {})},
        environment={
            "TOKEN": token,
            "DATA": f"{data}/device-{number}/data.toml",
            **foreign.pop("environment", {}),
        },
        mem_limit=f"{board.memory_mb}m",
        memswap_limit=f"{board.memory_mb}m",
        nano_cpus=int(min(board.cpus, float(machine["NCPU"])) * 1e9),
        **foreign,
    )
    # It gets its own share of the samples: no volume holds those of others.
    own = engine.run(server, "tar", "-c", "-C", SPLIT, f"device-{number}", "test.npz")
    with told():
        device.put_archive(data, own)
        device.start()
    return device


def _until_well(engine: Engine, container: Any, part: str) -> None:
    patience = PATIENCE * (EMULATED if EMULATION in container.labels else 1)
    deadline = time.monotonic() + patience
    while True:
        with told():
            container.reload()
        if container.status not in ("created", "running"):
            raise ConfigError(f"{container.name} ended: {_last_words(container)}")
        try:
            engine.run(container, "python", "-m", "deploy.health", part)
            return
        except ConfigError as error:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{container.name}: {part} is not well after {patience:g} s: {_last_words(container)}"
                ) from error
        time.sleep(POLL)


def _last_words(container: Any) -> str:
    with told():
        return " ".join(container.logs(tail=5).decode(errors="replace").split())[-500:]


def describe(device: Any) -> str:
    """Return the limits of a device's container."""
    limits = device.attrs["HostConfig"]
    return f"{limits['Memory'] // 2**20} MB, {limits['NanoCpus'] / 1e9:g} cores"


def memory_used(container: Any) -> int:
    """Return the bytes that a container can't do without: its cache of files is not counted."""
    with told():
        facts = container.stats(stream=False, one_shot=True)["memory_stats"]
    # The name differs between the two versions of control groups.
    cache = next(
        (facts["stats"][name] for name in ("total_inactive_file", "inactive_file") if name in facts["stats"]), 0
    )
    return int(facts["usage"] - cache)
