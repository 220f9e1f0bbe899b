import pytest

from simulations.setup import DEVICES_PER_HOST, hosts_of


@pytest.mark.parametrize(("devices", "hosts"), [(1, 1), (DEVICES_PER_HOST, 1), (DEVICES_PER_HOST + 1, 2)])
def test_no_host_has_more_devices_than_a_message_is_for(devices: int, hosts: int) -> None:
    assert hosts_of(devices) == hosts
