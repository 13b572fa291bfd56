"""The judge of the chaos runs finds what it must find, and a seed causes the same faults each time."""

from itertools import count
from pathlib import Path

import pytest

from tests.chaos.plan import NAMES, Plan
from tests.chaos.recorder import Recorder


class Daemons:
    """Processes that write records, each to its own file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def write(self, *records: tuple[int, float]) -> None:
        """Let a new process of the daemon x write records: tokens and times."""
        lines = "".join(f"x {token} {at:.6f}\n" for token, at in records)
        (self._folder / str(next(self._numbers))).write_text(lines)


@pytest.fixture
def daemons(tmp_path: Path) -> Daemons:
    return Daemons(tmp_path)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def test_runs_one_after_the_other_are_no_violation(daemons: Daemons, recorder: Recorder) -> None:
    # Given
    daemons.write((5, 1.0), (5, 1.1))
    daemons.write((6, 1.2), (6, 1.3))

    # When
    recorder.read()

    # Then
    assert recorder.violations == []
    assert (recorder.runs, recorder.records) == (2, 4)


def test_a_record_of_a_run_after_the_first_of_a_later_run_is_an_overlap(daemons: Daemons, recorder: Recorder) -> None:
    # Given two processes whose files are read one after the other
    daemons.write((6, 1.2), (6, 1.3))
    recorder.read()
    daemons.write((5, 1.0), (5, 1.1), (5, 1.25))

    # When
    recorder.read()

    # Then
    assert [violation.kind for violation in recorder.violations] == ["overlap"]


def test_a_run_that_begins_before_the_last_record_of_another_is_an_overlap(
    daemons: Daemons, recorder: Recorder
) -> None:
    # Given
    daemons.write((5, 1.0), (5, 1.3))
    recorder.read()
    daemons.write((6, 1.2))

    # When
    recorder.read()

    # Then
    assert [violation.kind for violation in recorder.violations] == ["overlap"]


def test_a_later_run_with_a_smaller_token_is_found_without_an_overlap(daemons: Daemons, recorder: Recorder) -> None:
    # Given
    daemons.write((6, 1.0), (6, 1.1))
    daemons.write((5, 1.2), (5, 1.3))

    # When
    recorder.read()

    # Then
    assert [violation.kind for violation in recorder.violations] == ["token decreased"]


def test_a_short_run_that_is_read_late_is_no_violation(daemons: Daemons, recorder: Recorder) -> None:
    # Given
    daemons.write((6, 1.2))
    recorder.read()
    daemons.write((5, 1.0), (5, 1.1))

    # When
    recorder.read()

    # Then
    assert recorder.violations == []


def test_a_seed_gives_the_same_faults_whatever_each_of_them_draws() -> None:
    # Given two plans of one seed
    first, second = Plan(7), Plan(7)

    # When the faults of one draw numbers, and those of the other do not
    steps = []
    for _ in range(100):
        steps.append((first.next(), second.next()))
        steps[-1][0].rng.random()

    # Then
    assert [step.cause for step, _ in steps] == [step.cause for _, step in steps]
    assert [step.pause for step, _ in steps] == [step.pause for _, step in steps]


def test_a_plan_of_one_kind_causes_no_other() -> None:
    # Given
    plan = Plan(7, only=["hole"])

    # When
    causes = {plan.next().cause for _ in range(20)}

    # Then
    assert causes == {NAMES["hole"]}
