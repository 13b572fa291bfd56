"""One cluster, seen from a client: every call is a round trip or two, none needs a worker to answer."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from celery_daemons.client.locator import Locator
from celery_daemons.domain.names import DaemonName, NodeName, daemon_name, launcher_name, node_name
from celery_daemons.domain.placement import Ring
from celery_daemons.domain.records import Address, DaemonRecord, JournalEntry, Leader, Node, NodeRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.errors import ConfigurationError, DaemonsError, SpawnTimeout, SpecConflict
from celery_daemons.store import journal, lease, reading, wishes
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.wishes import Wanted

#: Seconds between looks while waiting: the first, and the longest.
_FIRST_LOOK: Final = 0.002
_LONGEST_LOOK: Final = 0.1
#: Seconds after which a wait asks whether the daemon is stopped, and the wait in vain.
_PATIENCE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecord:
    """How a launcher's recovery scanner last went; ``at_ms`` by Redis's clock."""

    at_ms: int
    took_ms: int
    listed: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The cluster at a glance; counts are by status."""

    namespace: str
    leader: Leader | None
    nodes: dict[str, int]
    daemons: dict[str, int]
    scanners: dict[str, ScanRecord]


class Cluster:
    """Look-ups and wishes on one namespace of one Redis."""

    def __init__(self, url: str, namespace: str, *, vnodes: int) -> None:
        self.store = Store(url, Keys(namespace))
        self._keys = self.store.keys
        self._vnodes = vnodes
        self._locator = Locator(self.store)

    # Looking up

    def locate(self, name: str) -> Address | None:
        """Where a daemon is; ``None`` unless the lease of its node runs. One round trip. Raises InvalidName."""
        return self._locator.locate(name)

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """The same for many, those found: one round trip per 1,000."""
        return self._locator.locate_many(names)

    def nodes(self) -> list[Node]:
        """Every registered node by name."""
        return reading.nodes(self.store)

    def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> Iterator[DaemonRecord]:
        """Every daemon that is known, in no order, a page at a time; only those that match what is given."""
        if status is not None and status not in tuple(DaemonStatus):
            raise ConfigurationError(f"there is no status {status!r}; a daemon is {', '.join(DaemonStatus)}")
        for record in reading.records(self.store):
            if (
                (node is None or record.node == node)
                and (launcher is None or record.launcher == launcher)
                and (status is None or record.status == status)
            ):
                yield record

    def record(self, name: str) -> DaemonRecord | None:
        """What is known of one daemon."""
        wanted = daemon_name(name)
        ((spec, row),) = reading.rows(self.store, [wanted])
        if spec is None:
            return None
        live = reading.node_rows(self.store)
        node = live.get(row.node) if row and row.node else None
        return reading.record(wanted, spec, row, node[0] if node and node[1] > 0 else None)

    def arguments(self, name: str) -> str | None:
        """The encoded call that a daemon's launcher gets."""
        ((spec, _),) = reading.rows(self.store, [daemon_name(name)])
        return spec.arguments if spec else None

    def pick_node(self, name: str) -> str | None:
        """The node that the ring prefers for a name, running or not; ``None`` while no node takes daemons."""
        return preferred(
            daemon_name(name),
            {n: r for n, (r, left) in reading.node_rows(self.store).items() if left > 0},
            self._vnodes,
        )

    def leader(self) -> Leader | None:
        """Who leads now."""
        return reading.leader(self.store)

    def now(self) -> float:
        """Unix seconds by Redis's clock, by which ``started_at`` is told."""
        seconds, micros = self.store.read(lambda client: client.time())
        return float(seconds) + float(micros) / 1e6

    def status(self) -> ClusterStatus:
        """Leader, nodes, daemons by status, scanners."""
        nodes = {str(NodeStatus.UP): 0, str(NodeStatus.DRAINING): 0, str(NodeStatus.LOST): 0}
        for node in self.nodes():
            nodes[node.status] += 1
        daemons = {"desired": 0, **{str(status): 0 for status in DaemonStatus}}
        for record in reading.records(self.store):
            daemons["desired"] += record.desired is Desired.RUNNING
            daemons[record.status] += 1
        return ClusterStatus(
            namespace=self._keys.namespace,
            leader=self.leader(),
            nodes=nodes,
            daemons=daemons,
            scanners=reading.scans(self.store, ScanRecord),
        )

    def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """The last entries of the journal, oldest first."""
        return journal.newest(self.store, last)

    def follow_events(self, after: str | None = None) -> Iterator[JournalEntry]:
        """What happens from now on, or after an entry's id; never ends."""
        position = after or journal.last_id(self.store)
        while True:
            for entry in journal.follow(self.store, position, block_ms=1000):
                position = entry.id
                yield entry

    # Steering

    def want(self, name: str, launcher: str, arguments: str, *, replace: bool = False) -> Wanted:
        """Record that a daemon should run, and say what came of it. Raises SpecConflict, InvalidName."""
        item = (daemon_name(name), launcher_name(launcher), arguments)
        (outcome,) = self.store.run(wishes.want(self._keys, [item], mode="replace" if replace else "spawn"))
        if outcome == "conflict":
            ((spec, _),) = reading.rows(self.store, [item[0]])
            # Not by which arguments: the error of a launcher's task ends up in a worker's log.
            taken = f" by one of launcher {spec.launcher}" if spec else ""
            if spec and spec.launcher == launcher:
                taken += " with other arguments"
            raise SpecConflict(
                f"daemon {name}: the name is taken{taken} (`celery -A … daemons describe {name}` shows it); "
                "choose another name, or replace it with replace=True or --replace"
            )
        return outcome

    def wait_running(self, name: str, *, within: float, than: str | None = None) -> Address:
        """Wait until a daemon runs, under a newer token than ``than`` if given; SpawnTimeout says why it does not."""
        wanted = daemon_name(name)
        began = time.monotonic()
        deadline = began + within
        pause, patient = _FIRST_LOOK, True
        while True:
            address = self.locate(wanted)
            if (
                address is not None
                and address.status is DaemonStatus.RUNNING
                and (than is None or address.token > int(than))
            ):
                return address
            left = deadline - time.monotonic()
            if left <= 0:
                raise SpawnTimeout(f"daemon {name} does not run after {within} s: {self.why_not(wanted)}")
            if patient and time.monotonic() - began > _PATIENCE:
                # Once: who stops it while somebody waits for it is seen at the end of the wait.
                patient = False
                record = self.record(wanted)
                if record is not None and record.desired is Desired.STOPPED:
                    raise SpawnTimeout(f"daemon {name} does not run: {self.why_not(wanted)}")
            time.sleep(min(pause, left))
            pause = min(_LONGEST_LOOK, pause * 1.3)

    def why_not(self, name: str) -> str:
        """Why a daemon does not run, and what to do about it."""
        record = self.record(name)
        if record is None:
            return "it is not known (any more): nothing wants it to run"
        if record.desired is Desired.STOPPED:
            return f"it is stopped; `celery -A … daemons start {name}` starts it"
        nodes = [node for node in self.nodes() if node.status is not NodeStatus.LOST]
        if not nodes:
            return "no node is up; start a worker with `celery -A … worker`"
        if self.leader() is None:
            return (
                "no monitor is elected; look for its error in the workers' logs, "
                "or start one with `celery -A … daemons monitor`"
            )
        error = f" ({record.error})" if record.error else ""
        if record.status is DaemonStatus.PENDING:
            return (
                f"the monitor has not placed it yet{error}; "
                "it gives a new address book, or another Redis, one lease first"
            )
        return f"its status is {record.status}{error}"

    def stop(self, name: str, wait: float | None = None) -> None:
        """Stop a daemon for good; with ``wait`` seconds, return once it has. Raises DaemonsError if it is not known."""
        self._desire(name, "stop")
        if wait is not None:
            self._wait_gone(daemon_name(name), wait)

    def start(self, name: str) -> None:
        """Let a stopped daemon run again."""
        self._desire(name, "start")

    def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Stop a daemon and start it anew; with ``wait`` seconds, return once it runs again."""
        before = self.locate(name)
        self._desire(name, "restart")
        if wait is None:
            return None
        return self.wait_running(name, within=wait, than=str(before.token) if before else None)

    def forget(self, name: str) -> bool:
        """Stop a daemon and know nothing of it any more; false when none was known."""
        return bool(self.store.run(wishes.forget(self._keys, [daemon_name(name)], cause="forgotten")))

    def rescan(self, launcher: str | None = None) -> None:
        """Ask the monitor to run one recovery scanner, or all, now."""
        self.store.run(journal.note(self._keys, "rescan", cause=launcher or ""))

    def drain(self, node: str, wait: float | None = None) -> None:
        """Hand all daemons of a node over and give it none; with ``wait`` seconds, return once it holds none."""
        self._set_drain(node, on=True)
        if wait is None:
            return
        deadline = time.monotonic() + wait
        while any(one.name == node and one.daemons for one in self.nodes()):
            if time.monotonic() >= deadline:
                raise DaemonsError(
                    f"node {node} still holds daemons after {wait} s; "
                    f"`celery -A … daemons list --node {node}` shows them"
                )
            time.sleep(_LONGEST_LOOK)

    def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again."""
        self._set_drain(node, on=False)

    def close(self) -> None:
        """Close the connections."""
        self.store.close()

    def _set_drain(self, node: str, *, on: bool) -> None:
        if not self.store.run(lease.drain(self._keys, node_name(node), on=on)):
            known = ", ".join(one.name for one in self.nodes()) or "none"
            raise DaemonsError(f"no node {node} is registered (registered: {known})")

    def _desire(self, name: str, action: Literal["stop", "start", "restart"]) -> None:
        if not self.store.run(wishes.desire(self._keys, daemon_name(name), action)):
            raise DaemonsError(f"no daemon {name} is known; `celery -A … daemons list` shows those that are")

    def _wait_gone(self, name: DaemonName, within: float) -> None:
        deadline = time.monotonic() + within
        pause = _FIRST_LOOK
        while (address := self.locate(name)) is not None:
            if time.monotonic() >= deadline:
                raise DaemonsError(
                    f"daemon {name} has not stopped after {within} s: it is {address.status} on {address.node}"
                )
            time.sleep(pause)
            pause = min(_LONGEST_LOOK, pause * 1.3)


def preferred(name: DaemonName, nodes: dict[NodeName, NodeRow], vnodes: int) -> str | None:
    """The first node on the ring for a name among those that take daemons."""
    weights = {node: row.weight for node, row in nodes.items() if row.status is NodeStatus.UP}
    return next(Ring(weights, vnodes=vnodes).preference(name), None)
