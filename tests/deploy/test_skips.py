"""What CI does about tests that can't run: they fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import NO_SKIPS

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no nginx")
def test_marked(): ...

@pytest.fixture
def lab():
    pytest.skip("no Docker")

def test_fixture(lab): ...

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    assert False
"""


@pytest.mark.parametrize(("wanted", "told"), [("", "2 skipped, 1 xfailed"), ("1", "1 xfailed, 2 errors")])
def test_a_skip_is_a_failure_with_its_reason_where_nothing_may_be_skipped(
    wanted: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text("from tests.deploy.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-rs", str(tmp_path)]
    environment = {**os.environ, NO_SKIPS: wanted}
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert told in done.stdout
    assert done.returncode == (1 if wanted else 0)
    for reason in ("no nginx", "no Docker"):
        assert reason in done.stdout
