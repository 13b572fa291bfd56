"""Correct programs of users pass a strict type checker, and wrong ones do not."""

import subprocess
import sys
from pathlib import Path

import pytest

API = Path(__file__).with_name("api.py")

MISTAKES = """\
from celery import Celery  # type: ignore[import-untyped]
from celery_daemons import Daemons

daemons = Daemons(Celery("proj"))
place: str = daemons.locate("tail.web-1")
daemons.drain(5)
"""


def check(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type-check one file as a user would, with ``--strict`` and no other configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", str(path)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def test_the_program_of_the_documentation_passes_a_strict_type_checker(tmp_path: Path) -> None:
    done = check(API, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("line", [5, 6])
def test_a_wrong_type_is_found(tmp_path: Path, line: int) -> None:
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)

    done = check(program, tmp_path)

    assert done.returncode == 1
    assert f"mistakes.py:{line}: error:" in done.stdout, done.stdout + done.stderr
