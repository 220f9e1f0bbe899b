"""A host is one Flower node; it carries one device or many. What kind of host this is, the run configuration names."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from fedstill.errors import ConfigError
from fedstill.loading import load_object
from fedstill.rounds import DeviceAnswer


class Host(Protocol):
    """Whatever computes the devices behind a node."""

    def devices(self) -> Mapping[int, str]:
        """Return the classes of this host's devices by device."""

    def answer(self, requests: Mapping[int, bytes]) -> Mapping[int, DeviceAnswer]:
        """Return the answers of devices to their serialized requests, by device."""


@runtime_checkable
class Waiting(Protocol):
    """A host that waits for another process while somebody waits for it."""

    def within(self, seconds: float) -> Host:
        """Return this host, waiting no longer than that."""


@lru_cache(maxsize=64)
def _build(reference: str, run_config: tuple[tuple[str, Any], ...], node_config: tuple[tuple[str, Any], ...]) -> Host:
    host: Host = load_object(reference)(dict(run_config), dict(node_config))
    return host


def host_of(run_config: Mapping[str, Any], node_config: Mapping[str, Any], run_id: int) -> Host:
    """Return the host that the run configuration names under `host`, the same object for the same configuration.

    Raises:
        ConfigError: the run configuration names no host.
    """
    reference = run_config.get("host")
    if not isinstance(reference, str):
        raise ConfigError("the run configuration names no host (key 'host', module:object)")
    named = {**run_config, "run-id": run_id}
    return _build(reference, tuple(sorted(named.items())), tuple(sorted(node_config.items())))
