import pytest

from deploy.lab.boards import BOARDS, read_fleet
from fedstill.errors import ConfigError


def test_words_become_devices_in_their_order() -> None:
    assert read_fleet(["pi5=1", "zero2w=2", "pi4=1"]) == ["pi5", "zero2w", "zero2w", "pi4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pi4"], "not of the form"),
        (["pi4=two"], "not of the form"),
        (["pi4=-1"], "not of the form"),
        (["pi9=1"], "no class pi9"),
        (["mcu=1"], "microcontroller"),
        (["pi4=0"], "no devices"),
        (["pi4=40", "pi5=40"], "too many"),
        (["pi4=99999999999"], "too many"),
    ],
)
def test_what_is_no_fleet_is_refused_in_a_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_fleet(words)


def test_a_zero_2_w_has_512_mb() -> None:
    assert BOARDS["zero2w"].memory_mb == 512
