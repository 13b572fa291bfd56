"""Host processes of the model: the daemons in each process, and the end of the process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.domain.states import Outcome
from celery_daemons.node.supervision.commands import HostId
from tests.unit.protocol.world import must


@dataclass(eq=False)
class ModelHost:
    """A host process: its daemons with their tokens, and the ones that were asked to stop."""

    isolated: bool
    running: dict[DaemonName, Token] = field(default_factory=dict)
    stopping: set[DaemonName] = field(default_factory=set)
    #: Daemons that have reported their end, in a process that still lives.
    ended: set[DaemonName] = field(default_factory=set)


class HostEvents(Protocol):
    """What an agent does about events of its hosts."""

    def run_ended(self, host_id: HostId, end: End) -> None:
        """Handle the report of a daemon's end."""

    def host_died(self, host_id: HostId) -> None:
        """Handle the death of a process."""


class ModelHosts:
    """The host processes of one agent."""

    def __init__(self, events: HostEvents, note_start: Callable[[DaemonName, Token], None]) -> None:
        self._events = events
        self._note_start = note_start
        self._hosts: dict[HostId, ModelHost] = {}
        #: Processes that could not be forked yet, by whether they are isolated.
        self._unborn: dict[HostId, bool] = {}
        #: Every fork fails.
        self.forks_fail = False

    @property
    def running(self) -> dict[DaemonName, Token]:
        """Return what runs, and under which tokens; a process that has not died counts."""
        return {name: token for host in self._hosts.values() for name, token in host.running.items()}

    @property
    def stopping(self) -> bool:
        """Return whether a daemon was asked to stop and has not."""
        return any(host.stopping for host in self._hosts.values())

    @property
    def ended(self) -> bool:
        """Return whether a process lives whose daemon has ended."""
        return any(host.ended for host in self._hosts.values())

    # Commands

    @property
    def unborn(self) -> bool:
        """Return whether a process waits for a fork that succeeds."""
        return bool(self._unborn)

    def open(self, host_id: HostId, *, isolated: bool) -> bool:
        """Start a process; False if that failed and is tried again by :meth:`retry_forks`."""
        if self.forks_fail:
            self._unborn[host_id] = isolated
            return False
        self._hosts[host_id] = ModelHost(isolated)
        return True

    def retry_forks(self) -> list[HostId]:
        """Try again to start the processes that could not be forked; return those that were."""
        if self.forks_fail:
            return []
        born, self._unborn = self._unborn, {}
        for host_id, isolated in born.items():
            self._hosts[host_id] = ModelHost(isolated)
        return list(born)

    def start(self, host_id: HostId, items: list[StartItem]) -> bool:
        """Start daemons in a process; False if it is dead."""
        host = self._hosts.get(host_id)
        if host is None:
            return False
        for item in items:
            must(item.name not in self.running, f"{item.name} was started twice on one node")
            self._note_start(item.name, item.token)
            host.running[item.name] = item.token
        return True

    def ask_to_stop(self, host_id: HostId, names: list[DaemonName]) -> None:
        """Ask daemons of a process to stop."""
        host = self._hosts.get(host_id)
        if host is not None:
            host.stopping.update(name for name in names if name in host.running and name not in host.ended)

    def kill(self, host_id: HostId) -> None:
        """Kill a process, also one that was not forked yet."""
        if self._hosts.pop(host_id, None) is not None or self._unborn.pop(host_id, None) is not None:
            self._events.host_died(host_id)

    def kill_all(self) -> None:
        """Kill every process."""
        for host_id in (*self._hosts, *self._unborn):
            self.kill(host_id)

    # Events

    def report_stops(self) -> None:
        """Let daemons that were asked to stop report their end; a process that ran only one still lives."""
        for host_id, host in list(self._hosts.items()):
            for name in sorted(host.stopping):
                self._end(host_id, host, name, Outcome.STOPPED)

    def end_run(self, name: DaemonName, outcome: Outcome) -> None:
        """Let a daemon's code end by itself."""
        for host_id, host in self._with(name):
            if name not in host.ended:
                self._end(host_id, host, name, outcome)

    def bury_ended(self) -> None:
        """Let each process whose only daemon has ended exit."""
        for host_id, host in list(self._hosts.items()):
            if host.isolated and host.ended:
                self.kill(host_id)

    def crash(self, name: DaemonName) -> None:
        """Let the process of a daemon die without a report."""
        for host_id, _ in self._with(name):
            self.kill(host_id)

    def _with(self, name: DaemonName) -> Iterator[tuple[HostId, ModelHost]]:
        return ((host_id, host) for host_id, host in list(self._hosts.items()) if name in host.running)

    def _end(self, host_id: HostId, host: ModelHost, name: DaemonName, outcome: Outcome) -> None:
        host.stopping.discard(name)
        token = host.running[name]
        if host.isolated:
            host.ended.add(name)
        else:
            del host.running[name]
        self._events.run_ended(host_id, End(name, token, outcome))
