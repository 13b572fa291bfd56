"""What the supervisor knows about its daemons and hosts, for the agent to read."""

from collections import Counter
from typing import NamedTuple

from celery_daemons.domain.names import DaemonName, LauncherName
from celery_daemons.domain.runs import Running
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.node.supervision.local_daemon import State
from celery_daemons.node.supervision.run_tally import RunTally
from celery_daemons.node.supervision.state import NodeState


class Placed(NamedTuple):
    """The state of a daemon on this node, and the host that has it, if one has."""

    state: str
    host: HostId | None


class NodeView:
    """Reads the state of a node."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    @property
    def count(self) -> int:
        """How many daemons this node has."""
        return len(self._state.daemons)

    @property
    def names(self) -> list[DaemonName]:
        """The names of these daemons."""
        return list(self._state.daemons)

    @property
    def tally(self) -> RunTally:
        """What has happened to runs on this node."""
        return self._state.tally

    def running_by_launcher(self) -> Counter[LauncherName]:
        """Return how many daemons run; visits every daemon of this node."""
        daemons = self._state.daemons.values()
        return Counter(daemon.launcher for daemon in daemons if daemon.state is State.RUNNING)

    @property
    def draining(self) -> bool:
        """Whether the node gives everything back and starts nothing."""
        return self._state.draining

    @property
    def serial(self) -> int:
        """The serial of the newest assignment, for :meth:`synchronised`."""
        return self._state.serial

    @property
    def next_due_at(self) -> float:
        """When :meth:`due` has to be called next; infinite if never."""
        return self._state.timers.next_at

    def running(self) -> list[Running]:
        """Return every daemon that Redis once confirmed: what Redis must know again after a loss of data."""
        return self._state.confirmed()

    def placed(self, name: DaemonName) -> Placed | None:
        """Return the state and the host of a daemon, ``None`` if this node does not have it."""
        daemon = self._state.daemons.get(name)
        if daemon is None:
            return None
        return Placed(daemon.state.value, daemon.host.id if daemon.host is not None else None)

    def blocked_loops(self) -> list[tuple[int, float, str]]:
        """Return pid, start and daemon of each event loop that is blocked; the name is empty for unknown code."""
        return [
            (host.pid, host.blocked_since, host.blocked_by)
            for host in self._state.hosts.values()
            if host.blocked_since is not None
        ]
