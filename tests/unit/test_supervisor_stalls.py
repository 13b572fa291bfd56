"""What the supervisor does about blocked event loops: no daemon starts there, and repeated blocking moves one."""

import random

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import Assignment, ClaimResult, End
from celery_daemons.domain.states import Outcome
from celery_daemons.node.supervision.commands import Command, HostId, OpenHost, StartOn, StopOn
from celery_daemons.node.supervision.supervisor import Supervisor

LAUNCHERS = {
    LauncherName("auto"): LauncherOptions(isolation="auto", stop_grace=2.0),
    LauncherName("shared"): LauncherOptions(stop_grace=2.0),
}
X, Y = DaemonName("x"), DaemonName("y")


class Node:
    """A supervisor with one shared host, number 1."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(LAUNCHERS, shared_hosts=1, rng=random.Random(1))
        self.host = HostId(1)
        self.supervisor.open_hosts(now=0.0)
        self.supervisor.host_ready(self.host, 100, now=0.0)

    def starts(self, name: DaemonName, token: int, launcher: str = "auto", *, now: float = 0.0) -> list[Command]:
        """Assign a daemon and grant its claim."""
        self.supervisor.assigned([Assignment(name, Token(token))], now=now)
        return self.granted(name, token, token, launcher, now=now)

    def granted(self, name: DaemonName, asked: int, token: int, launcher: str, *, now: float) -> list[Command]:
        """Grant a claim."""
        result = ClaimResult(Token(token), LauncherName(launcher), "[[],{}]", "1", 0)
        return self.supervisor.claimed([Assignment(name, Token(asked))], [result], now=now)

    def runs(self, name: DaemonName, token: int, launcher: str = "auto") -> None:
        """Start a daemon on the shared host."""
        self.starts(name, token, launcher)
        self.supervisor.started(self.host, [(name, Token(token))], now=0.0)

    def stalls(self, name: DaemonName, token: int, *, now: float) -> list[Command]:
        """The daemon blocks the loop for 0.2 s."""
        return self.supervisor.stalled(self.host, [(name, Token(token), 0.2)], now=now)


def test_the_third_stall_within_a_minute_moves_a_daemon_to_a_process_of_its_own() -> None:
    # Given
    node = Node()
    node.runs(X, 5)

    # When
    first = node.stalls(X, 5, now=1.0) + node.stalls(X, 5, now=40.0)
    third = node.stalls(X, 5, now=59.0)

    # Then
    assert first == []
    assert third == [StopOn(node.host, [X])]

    # When it has stopped and is claimed again
    node.supervisor.ended(node.host, [End(X, Token(5), Outcome.STOPPED)], now=59.1)
    commands = node.granted(X, 5, 6, "auto", now=59.2)

    # Then
    (opened,) = [command for command in commands if isinstance(command, OpenHost)]
    assert opened.isolated
    started = node.supervisor.host_ready(opened.host, 200, now=59.3)
    assert [command.host for command in started if isinstance(command, StartOn)] == [opened.host]


@pytest.mark.parametrize(("launcher", "last"), [("auto", 62.0), ("shared", 3.0)])
def test_stalls_over_a_longer_time_or_of_another_isolation_move_nothing(launcher: str, last: float) -> None:
    node = Node()
    node.runs(X, 5, launcher)

    commands = [command for now in (1.0, 2.0, last) for command in node.stalls(X, 5, now=now)]

    assert commands == []


def test_one_stall_that_does_not_end_moves_the_daemon_too() -> None:
    # Given
    node = Node()
    node.runs(X, 5)

    # When
    node.supervisor.loop_blocked(node.host, X, 1.0, now=10.0)
    early = node.supervisor.due(now=13.9)
    late = node.supervisor.due(now=14.1)

    # Then
    assert early == []
    assert late == [StopOn(node.host, [X])]


def test_a_long_stall_that_has_ended_in_time_moves_nothing() -> None:
    node = Node()
    node.runs(X, 5)

    node.supervisor.loop_blocked(node.host, X, 1.0, now=10.0)
    node.supervisor.loop_free(node.host)

    assert node.supervisor.due(now=20.0) == []


def test_nothing_is_started_on_a_host_whose_loop_is_blocked() -> None:
    # Given
    node = Node()
    node.runs(X, 5, "shared")
    node.supervisor.loop_blocked(node.host, X, 1.0, now=10.0)

    # When
    commands = node.starts(Y, 6, "shared", now=11.0)

    # Then
    (opened,) = [command for command in commands if isinstance(command, OpenHost)]
    assert not opened.isolated
    assert node.supervisor.blocked_loops() == [(100, 9.0, X)]

    # When the loop is free again
    node.supervisor.loop_free(node.host)

    # Then the first host is used again, and no other is opened
    assert node.supervisor.blocked_loops() == []
    commands = node.starts(DaemonName("z"), 7, "shared", now=12.0)
    assert not [command for command in commands if isinstance(command, OpenHost)]


def test_the_state_of_a_daemon_says_which_host_has_it() -> None:
    node = Node()
    node.runs(X, 5)

    placed = node.supervisor.placed(X)

    assert placed is not None
    assert (placed.state, placed.host) == ("running", node.host)
    assert node.supervisor.placed(Y) is None
