"""Flower's SuperNode as a process of a device: it ends when any part of it does."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading, time
import client.supernode as own

def fails():
    raise ValueError("the server's error")

def stays():
    threading.Thread(target=time.sleep, args=(600,)).start()  # as the local service does
    {what}

own.flower_supernode = stays
own.main()
"""


@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        ("threading.Thread(target=fails).start(); time.sleep(600)", 1, "ValueError: the server's error"),
        ("fails()", 1, "ValueError: the server's error"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no way')", 1, ""),
    ],
)
def test_it_ends_with_whatever_part_of_it_ends(what: str, code: int, told: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(what=what)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert told in done.stderr
