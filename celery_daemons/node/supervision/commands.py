"""What the supervisor wants done. The agent carries commands out; nothing here acts."""

from typing import NewType, TypeAlias

import msgspec

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import Assignment, Release, Report, StartItem

#: Identifies one host process for as long as the agent lives.
HostId = NewType("HostId", int)


class SendClaims(msgspec.Struct, frozen=True):
    """Ask Redis for permission to start these daemons."""

    items: list[Assignment]


class SendReports(msgspec.Struct, frozen=True):
    """Record the state of these daemons in Redis; only the newest report of a daemon counts."""

    items: list[Report]


class SendReleases(msgspec.Struct, frozen=True):
    """Release these daemons; the first release of a token counts."""

    items: list[Release]


class WithdrawClaim(msgspec.Struct, frozen=True):
    """Cancel a pending claim. If that succeeds, :meth:`Supervisor.withdrawn` follows; else the answer to the claim."""

    name: DaemonName


class DiscardPending(msgspec.Struct, frozen=True):
    """Send neither claim nor report of a daemon that this node no longer has."""

    name: DaemonName


class OpenHost(msgspec.Struct, frozen=True):
    """Fork a host process, either shared or for a single daemon."""

    host: HostId
    isolated: bool


class StartOn(msgspec.Struct, frozen=True):
    """Start daemons on a host that is ready."""

    host: HostId
    items: list[StartItem]


class StopOn(msgspec.Struct, frozen=True):
    """Ask daemons on a host to stop."""

    host: HostId
    names: list[DaemonName]


class ProbeHost(msgspec.Struct, frozen=True):
    """Ask the event loop of a host for an answer."""

    host: HostId


class KillHost(msgspec.Struct, frozen=True):
    """Kill a host process with all daemons there."""

    host: HostId


class Resync(msgspec.Struct, frozen=True):
    """Read this node's assignments again at the next heartbeat: Redis and this node disagree."""


Command: TypeAlias = (
    SendClaims
    | SendReports
    | SendReleases
    | WithdrawClaim
    | DiscardPending
    | OpenHost
    | StartOn
    | StopOn
    | ProbeHost
    | KillHost
    | Resync
)


class CommandList:
    """Commands in the order of the decisions; neighbours of the same kind are merged."""

    def __init__(self) -> None:
        self._commands: list[Command] = []

    def add(self, command: Command) -> None:
        """Append a command."""
        self._commands.append(command)

    def claim(self, name: DaemonName, token: Token) -> None:
        """Append a claim."""
        last = self._commands[-1] if self._commands else None
        if type(last) is SendClaims:
            last.items.append(Assignment(name, token))
        else:
            self._commands.append(SendClaims([Assignment(name, token)]))

    def report(self, report: Report) -> None:
        """Append a report."""
        last = self._commands[-1] if self._commands else None
        if type(last) is SendReports:
            last.items.append(report)
        else:
            self._commands.append(SendReports([report]))

    def release(self, release: Release) -> None:
        """Append a release."""
        last = self._commands[-1] if self._commands else None
        if type(last) is SendReleases:
            last.items.append(release)
        else:
            self._commands.append(SendReleases([release]))

    def take(self) -> list[Command]:
        """Return all commands and start an empty list."""
        commands, self._commands = self._commands, []
        return commands
