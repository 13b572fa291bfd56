"""The records that nodes exchange with Redis and with hosts: assignments, claims, starts, ends and releases."""

from typing import NamedTuple

import msgspec

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, Token
from celery_daemons.domain.states import DaemonStatus, Outcome


class Assignment(NamedTuple):
    """A daemon that is assigned to a node, and the token of the assignment."""

    name: DaemonName
    token: Token


class ClaimResult(msgspec.Struct, frozen=True):
    """The answer to a claim; ``refused`` is the reason for a refusal, and empty for a granted claim.

    The token of a granted claim is the one to start under; it may be newer than the claimed token. ``avoid`` is a node
    that has given up on the daemon, or ``None``.
    """

    token: Token
    launcher: LauncherName
    arguments: str
    version: str
    restarts: int
    avoid: NodeName | None = None
    refused: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a claimed daemon; ``pid`` is 0 while there is no process."""

    name: DaemonName
    token: Token
    status: DaemonStatus
    pid: int
    restarts: int
    error: str | None = None
    trace: str | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that a node releases, and how the last run ended."""

    name: DaemonName
    token: Token
    outcome: Outcome
    restarts: int
    error: str | None = None
    trace: str | None = None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that a node runs, with everything needed to restore the entry after a loss of data in Redis."""

    name: DaemonName
    token: Token
    launcher: LauncherName
    arguments: str
    version: str
    status: DaemonStatus
    pid: int
    restarts: int


class StartItem(msgspec.Struct, array_like=True, frozen=True):
    """A daemon to start; ``arguments`` is the encoded call."""

    name: DaemonName
    token: Token
    launcher: LauncherName
    arguments: str


class End(msgspec.Struct, array_like=True, frozen=True):
    """How a run of a daemon ended; ``error`` and ``trace`` are texts for people.

    ``hopeless`` says that no restart will help, on this node or another.
    """

    name: DaemonName
    token: Token
    outcome: Outcome
    error: str | None = None
    trace: str | None = None
    hopeless: bool = False
