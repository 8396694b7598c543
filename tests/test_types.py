"""The types: a test, because its half minute then passes beside the other tests."""

import subprocess
import sys
from pathlib import Path


def test_mypy_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
