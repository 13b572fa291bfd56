"""Correct programs of users pass a strict type checker, and each mistake is reported."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest

from celery_daemons.domain.options import GivenOptions, LauncherOptions
from celery_daemons.given_settings import GivenSettings
from celery_daemons.settings import NAMES

API = Path(__file__).with_name("api.py")
MISTAKES = Path(__file__).with_name("mistakes.py")


def check(command: list[str], folder: Path) -> str:
    """Run a type checker as a user would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(path: Path, folder: Path) -> dict[int, str]:
    """Return the errors of mypy with ``--strict`` and no other configuration, by line."""
    printed = check(["mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", str(path)], folder)
    errors = [line.split(":", 2) for line in printed.splitlines() if ": error: " in line]
    assert errors or "Success" in printed, printed
    return {int(line): message for _, line, message in errors}


def pyright(path: Path, folder: Path) -> dict[int, str]:
    """Return the errors of pyright without a configuration, by line."""
    program = folder / path.name
    program.write_text(path.read_text())
    report = json.loads(check(["pyright", "--outputjson", "--pythonpath", sys.executable, str(program)], folder))
    assert report["summary"]["filesAnalyzed"] == 1, report
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


CHECKERS = [mypy, pytest.param(pyright, marks=pytest.mark.heavy)]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_correct_program_passes_a_type_checker(
    checker: Callable[[Path, Path], dict[int, str]], tmp_path: Path
) -> None:
    assert checker(API, tmp_path) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_reports_every_mistake_and_nothing_else(
    checker: Callable[[Path, Path], dict[int, str]], tmp_path: Path
) -> None:
    # Given
    lines = MISTAKES.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, start=1) if line.endswith("# wrong")}
    assert len(wrong) > 40

    # When
    errors = checker(MISTAKES, tmp_path)

    # Then
    assert {number: lines[number - 1] for number in wrong - set(errors)} == {}, "not reported"
    assert {number: message for number, message in errors.items() if number not in wrong} == {}


def test_every_setting_and_every_option_of_a_launcher_is_typed() -> None:
    assert set(get_type_hints(GivenSettings)) == NAMES
    assert set(get_type_hints(GivenOptions)) == set(LauncherOptions.__slots__)
