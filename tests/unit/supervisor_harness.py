"""A supervisor without hosts, Redis and clock: the harness of its tests."""

import random
from typing import TypeVar

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.runs import Assignment, ClaimResult, End, Report
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.supervision.commands import (
    Command,
    HostId,
    OpenHost,
    SendClaims,
    SendReleases,
    SendReports,
)
from celery_daemons.node.supervision.supervisor import Supervisor

X, Y = DaemonName("x"), DaemonName("y")
NODE = NodeName("celery@n1")
LAUNCHERS = {
    LauncherName("tail"): LauncherOptions(stop_grace=2.0, backoff=1.0, backoff_max=1.0),
    LauncherName("once"): LauncherOptions(restart="temporary"),
    LauncherName("alone"): LauncherOptions(isolation="process", stop_grace=2.0),
}

C = TypeVar("C")


class SupervisorHarness:
    """Plays Redis, hosts and clock to one supervisor, and records what it wants done."""

    def __init__(self, shared_hosts: int = 1) -> None:
        self.supervisor = Supervisor(LAUNCHERS, shared_hosts=shared_hosts, rng=random.Random(1))
        self.now = 0.0
        self.commands: list[Command] = []
        self.do(self.supervisor.open_hosts(now=self.now))
        (self.host,) = [command.host for command in self.of(OpenHost)]
        self.do(self.supervisor.host_ready(self.host, 100, now=self.now))

    def do(self, commands: list[Command]) -> list[Command]:
        """Record commands."""
        self.commands += commands
        return commands

    def of(self, kind: type[C]) -> list[C]:
        """The recorded commands of one kind."""
        return [command for command in self.commands if isinstance(command, kind)]

    # Events

    def assigned(self, token: int, name: DaemonName = X) -> None:
        """A spawn task assigns the daemon."""
        self.do(self.supervisor.assigned([Assignment(name, Token(token))], now=self.now))

    def recalled(self, token: int) -> None:
        """A spawn task recalls the daemon."""
        self.do(self.supervisor.recalled([Assignment(X, Token(token))], now=self.now))

    def granted(self, asked: int, token: int, launcher: str = "tail", name: DaemonName = X) -> None:
        """Redis grants a claim."""
        result = ClaimResult(Token(token), LauncherName(launcher), "[[],{}]", "1", 0)
        self.do(self.supervisor.claimed([Assignment(name, Token(asked))], [result], now=self.now))

    def refused(self, asked: int, why: str) -> None:
        """Redis refuses a claim."""
        result = ClaimResult(Token(0), LauncherName(""), "", "", 0, refused=why)
        self.do(self.supervisor.claimed([Assignment(X, Token(asked))], [result], now=self.now))

    def runs(self, token: int, launcher: str = "tail", name: DaemonName = X) -> HostId:
        """The daemon is assigned, claimed and running; returns its host."""
        self.assigned(token, name)
        self.granted(token, token, launcher, name)
        host = self.host
        if LAUNCHERS[LauncherName(launcher)].isolation == "process":
            host = self.of(OpenHost)[-1].host
            self.do(self.supervisor.host_ready(host, 200, now=self.now))
        self.do(self.supervisor.started(host, [(name, Token(token))], now=self.now))
        return host

    def ends(self, token: int, outcome: Outcome, host: HostId | None = None) -> None:
        """The host reports that the run has ended."""
        self.do(self.supervisor.ended(host or self.host, [End(X, Token(token), outcome)], now=self.now))

    def dies(self, host: HostId) -> None:
        """A host process is dead."""
        self.do(self.supervisor.host_died(host, now=self.now))

    def reads(self, token: int | None = None, status: DaemonStatus = DaemonStatus.ASSIGNED) -> None:
        """The node reads from the book that it holds the daemon under a token, or that it does not hold it."""
        rows: dict[DaemonName, BookRow | None] = {}
        if token is not None:
            rows[X] = BookRow(status=status, token=Token(token), launcher=LauncherName("tail"), node=NODE)
        self.do(self.supervisor.synchronised(rows, serial=self.supervisor.serial, now=self.now))

    def after(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.now += seconds
        while self.supervisor.next_due_at <= self.now:
            self.do(self.supervisor.due(now=self.now))

    # What it wants

    @property
    def claims(self) -> list[Token]:
        """The tokens under which it asked to start daemons."""
        return [item.token for command in self.of(SendClaims) for item in command.items]

    @property
    def releases(self) -> list[tuple[Token, Outcome]]:
        """The releases it asked for."""
        return [(release.token, release.outcome) for command in self.of(SendReleases) for release in command.items]

    @property
    def reports(self) -> list[Report]:
        """The reports it asked for."""
        return [report for command in self.of(SendReports) for report in command.items]
