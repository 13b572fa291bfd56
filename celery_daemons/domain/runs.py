"""What a node knows and reports about the daemons assigned to it: assignments, claims, starts, ends and releases."""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, Token
from celery_daemons.domain.states import DaemonStatus, Outcome


class Assignment(NamedTuple):
    """A daemon that the address book assigns to a node, under a token."""

    name: DaemonName
    token: Token


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The answer to one claim; ``refused`` is the reason of a refusal and empty for a granted claim.

    A granted claim has the token under which to start, which may be newer than the claimed one. ``avoid`` is a node
    that has given up on the daemon, ``None`` for none.
    """

    token: Token
    launcher: LauncherName
    arguments: str
    version: str
    restarts: int
    avoid: NodeName | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of a claimed daemon; ``pid`` is 0 while it has no process."""

    name: DaemonName
    token: Token
    status: DaemonStatus
    pid: int
    restarts: int
    error: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A daemon that its node gives back, and how its last run ended."""

    name: DaemonName
    token: Token
    outcome: Outcome
    restarts: int
    error: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that a node runs, with everything that Redis must know of it after it lost its data."""

    name: DaemonName
    token: Token
    launcher: LauncherName
    arguments: str
    version: str
    status: DaemonStatus
    pid: int
    restarts: int


class StartItem(msgspec.Struct, array_like=True, frozen=True):
    """One daemon to start; ``arguments`` is the encoded call."""

    name: DaemonName
    token: Token
    launcher: LauncherName
    arguments: str


class End(msgspec.Struct, array_like=True, frozen=True):
    """How one run of a daemon ended; ``error`` and ``trace`` are texts for people."""

    name: DaemonName
    token: Token
    outcome: Outcome
    error: str | None = None
    trace: str | None = None
