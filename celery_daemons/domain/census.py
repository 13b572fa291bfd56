"""Count the daemons of the cluster by launcher and status, at a cost of what changes: pure."""

from collections import Counter
from typing import NamedTuple

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired

#: The statuses of daemons that need attention.
UNHEALTHY = frozenset((DaemonStatus.FAILED, DaemonStatus.UNPLACEABLE))


class Counted(NamedTuple):
    """The properties of a daemon that are counted; equal instances are shared."""

    launcher: LauncherName
    status: DaemonStatus
    node: NodeName | None
    wanted: bool
    has_spec: bool


class Census:
    """The daemons by their counted properties."""

    def __init__(self) -> None:
        self._daemons: dict[DaemonName, Counted] = {}
        self._shared: dict[Counted, Counted] = {}
        self.statuses: Counter[tuple[LauncherName, DaemonStatus]] = Counter()
        self.desired: Counter[LauncherName] = Counter()
        self.by_node: Counter[NodeName] = Counter()
        self.unhealthy: dict[DaemonName, DaemonStatus] = {}

    def clear(self) -> None:
        """Forget every daemon."""
        self._daemons.clear()
        self._shared.clear()
        self.statuses.clear()
        self.desired.clear()
        self.by_node.clear()
        self.unhealthy.clear()

    def recount(
        self, name: DaemonName, spec: SpecRow | None, row: BookRow | None
    ) -> tuple[Counted | None, Counted | None]:
        """Count a daemon by its present records; return its counted properties before and now."""
        before, now = self._daemons.get(name), _counted(spec, row)
        if before == now:
            return before, now
        if before is not None:
            self._add(before, -1)
        if now is None:
            del self._daemons[name]
        else:
            self._daemons[name] = self._shared.setdefault(now, now)
            self._add(now, 1)
        if now is not None and now.has_spec and now.status in UNHEALTHY:
            self.unhealthy[name] = now.status
        else:
            self.unhealthy.pop(name, None)
        return before, now

    def _add(self, counted: Counted, number: int) -> None:
        if counted.has_spec:
            self.statuses[counted.launcher, counted.status] += number
            self.desired[counted.launcher] += number * counted.wanted
        if counted.node is not None:
            self.by_node[counted.node] += number


def _counted(spec: SpecRow | None, row: BookRow | None) -> Counted | None:
    node = row.node if row is not None else None
    if spec is None and (row is None or node is None):
        return None
    wanted = spec is not None and spec.desired is Desired.RUNNING
    if row is not None and node is not None:
        status = row.status
    elif not wanted:
        status = DaemonStatus.STOPPED
    else:
        parked = row is not None and row.status is DaemonStatus.UNPLACEABLE
        status = DaemonStatus.UNPLACEABLE if parked else DaemonStatus.PENDING
    launcher = spec.launcher if spec is not None else row.launcher if row is not None else LauncherName("")
    return Counted(launcher, status, node, wanted, spec is not None)
