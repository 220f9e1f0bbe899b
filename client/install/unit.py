"""The systemd unit of a device: a supervisor that may change users, and nothing that a round does not need."""

from client.home import Home
from client.limits import Limits
from fedstill.errors import ConfigError
from fedstill.processes import module

NAME = "fedstill-client.service"
STOP_SECONDS = 60

UNIT = """\
# Written by `fedstill client install`, which writes it anew; put changes into {name}.d/*.conf
[Unit]
Description=Fedstill device
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=10
# What an app of the server left behind ends with the service.
KillMode=mixed
TimeoutStopSec={stop_seconds}
# The agent may be the one that needs too much; the supervisor starts it again.
OOMPolicy=continue
{limits}
UMask=0077
# The supervisor is root with three rights: to start programs of other users, and to end them.
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={home}
ProtectHome=read-only
PrivateTmp=yes
{devices}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(home: Home, limits: Limits, device_class: str) -> str:
    """Return the unit of a device.

    Args:
        home: its folder.
        limits: its owner's; processor and memory are held here.
        device_class: a Jetson's processes may use its accelerator.

    Raises:
        ConfigError: a path has a character that means something else to systemd.
    """
    command = module("fedstill.cli", "client", "start", "--home", str(home.folder))
    for word in command:
        if not all(letter.isascii() and (letter.isalnum() or letter in "/._-+@:") for letter in word):
            raise ConfigError(f"{word}: a path with spaces or special characters can't stand in a unit")
    held = []
    if limits.cpu_percent is not None:
        held.append(f"CPUQuota={limits.cpu_percent}%")
    if limits.memory_mb is not None:
        held.append(f"MemoryMax={limits.memory_mb}M")
    return UNIT.format(
        name=NAME,
        command=" ".join(command),
        stop_seconds=STOP_SECONDS,
        limits="\n".join(held) or "# No CPUQuota and MemoryMax: limits.toml sets none.",
        home=home.folder,
        devices="# Its devices stay visible: the accelerator is one."
        if device_class == "jetson"
        else "PrivateDevices=yes",
    )
