from pathlib import Path

from client.home import Home
from client.programs import programs


def test_only_a_supernode_is_started_less_and_less_often(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.config_path.write_text('number = 2\ndevice_class = "pi4"\nsuperlink = "localhost:8000"\n')
    growing = {program.name: (program.pause, program.longest_pause) for program in programs(home)}
    assert growing == {"agent": (1, 0), "supernode": (10, 300), "apps": (1, 0)}
