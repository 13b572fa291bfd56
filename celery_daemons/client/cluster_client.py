"""One cluster, steered by a client: what is wanted is written to Redis, the monitor and the nodes bring it about."""

import time
from collections.abc import Callable, Collection
from typing import Final

from celery_daemons.client.lookups import Lookups
from celery_daemons.domain import placement
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, Token, daemon_name, launcher_name, node_name
from celery_daemons.domain.records import Address, needs_by_launcher
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.errors import DaemonsError, SpawnTimeout, SpecConflict
from celery_daemons.store import journal, lease, queries, specs
from celery_daemons.store.specs import Action, RecordOutcome

#: Seconds between looks while waiting: the first, and the longest.
_FIRST_LOOK: Final = 0.002
_LONGEST_LOOK: Final = 0.1
#: Seconds after which a wait asks whether the daemon is stopped, and the wait in vain.
_PATIENCE: Final = 0.2
#: Seconds between questions what cannot leave a node that drains: each reads the whole book.
_STRANDED_LOOK: Final = 1.0
#: Names that an error spells out.
_SPELLED: Final = 5


class ClusterClient(Lookups):
    """Look-ups and wishes on one namespace of one Redis."""

    def want(self, name: str, launcher: str, arguments: str, *, replace: bool = False) -> RecordOutcome:
        """Record that a daemon should run, and say what came of it. Raises SpecConflict, InvalidName."""
        item = (daemon_name(name), launcher_name(launcher), arguments)
        (outcome,) = self.store.run(specs.record(self._keys, [item], mode="replace" if replace else "spawn"))
        if outcome == "conflict":
            ((spec, _),) = queries.rows(self.store, [item[0]])
            # Not by which arguments: the error of a launcher's task ends up in a worker's log.
            taken = f" by one of launcher {spec.launcher}" if spec else ""
            if spec and spec.launcher == launcher:
                taken += " with other arguments"
            raise SpecConflict(
                f"daemon {name}: the name is taken{taken} (`celery -A … daemons describe {name}` shows it); "
                "choose another name, or replace it with replace=True or --replace"
            )
        return outcome

    def wait_running(
        self, name: str, *, within: float, than: Token | None = None, on: str | None = None, off: str | None = None
    ) -> Address:
        """Wait until a daemon runs, under a newer token than ``than``, on the node ``on`` and not on ``off``, if given.

        SpawnTimeout says why it does not.
        """
        wanted = daemon_name(name)
        began = time.monotonic()
        deadline = began + within
        pause, patient = _FIRST_LOOK, True
        while True:
            address = self.locate(wanted)
            if (
                address is not None
                and address.status is DaemonStatus.RUNNING
                and (than is None or address.token > than)
                and on in (None, address.node)
                and off != address.node
            ):
                return address
            left = deadline - time.monotonic()
            if left <= 0:
                there = f" on {on}" if on else ""
                raise SpawnTimeout(f"daemon {name} does not run{there} after {within} s: {self.why_not(wanted)}")
            if patient and time.monotonic() - began > _PATIENCE:
                # Once: who stops it while somebody waits for it is seen at the end of the wait.
                patient = False
                record = self.record(wanted)
                if record is not None and record.desired is Desired.STOPPED:
                    raise SpawnTimeout(f"daemon {name} does not run: {self.why_not(wanted)}")
            time.sleep(min(pause, left))
            pause = min(_LONGEST_LOOK, pause * 1.3)

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
        return self.wait_running(name, within=wait, than=before.token if before else None)

    def forget(self, name: str) -> bool:
        """Stop a daemon and know nothing of it any more; false when none was known."""
        return bool(self.store.run(specs.forget(self._keys, [daemon_name(name)], cause="forgotten")))

    def rescan(self, launcher: str | None = None) -> None:
        """Ask the monitor to run one recovery scanner, or all, now."""
        self.store.run(journal.note(self._keys, "rescan", cause=launcher or ""))

    def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Stop a daemon and start it on another node: on ``to``, or wherever it is placed other than here.

        With ``wait`` seconds, return once it runs again. Nothing happens if it is on ``to`` already. Raises
        DaemonsError for a daemon that is not known or is stopped, and for a node that does not take it.
        """
        record = self.record(name)
        if record is None:
            raise DaemonsError(f"no daemon {name} is known; `celery -A … daemons list` shows those that are")
        if record.desired is Desired.STOPPED:
            raise DaemonsError(f"daemon {name} is stopped; `celery -A … daemons start {name}` starts it")
        before = self.locate(name)
        nodes, asked = self._takers(record.launcher)
        others = ", ".join(node for node in nodes if record.node != node) or "none"
        if to is not None and to not in nodes:
            why = f"{to!r} is no node that is up and {asked}"
            raise DaemonsError(f"daemon {name} cannot move: {why}; those that are: {others}")
        if to is None and others == "none":
            raise DaemonsError(f"daemon {name} cannot move: no other node is up and {asked}")
        if to is not None and before is not None and before.node == to:
            return before
        self._desire(name, "move", target=to or "", avoid="" if to else record.node or "")
        if wait is None:
            return None
        # Not any newer token: it may crash, and start again where it was, before it is recalled.
        than, off = (before.token, before.node) if before else (None, None)
        return self.wait_running(name, within=wait, than=than, on=to, off=None if to else off)

    def _takers(self, launcher: LauncherName) -> tuple[list[NodeName], str]:
        """The nodes that take a launcher's daemons, and what such a node has, in words."""
        rows = queries.node_rows(self.store)
        labels, _ = needs_by_launcher({name: row for name, (row, _) in rows.items()}).get(launcher, ((), 1.0))
        live = {name: row for name, (row, left_ms) in rows.items() if left_ms > 0}
        demand = placement.Demand(name=DaemonName(""), launcher=launcher, labels=labels)
        nodes = sorted(placement.NodeLoads(nodes=live, load_factor=1.0, vnodes=1).fitting(demand))
        carrying = f" and the labels {','.join(sorted(labels))}" if labels else ""
        return nodes, f"has launcher {launcher}{carrying}"

    def ask_rebalance(self) -> None:
        """Ask the monitor to even the nodes out now."""
        self.store.run(journal.note(self._keys, "rebalance", cause="requested"))

    def pause_rebalance(self, *, paused: bool = True) -> None:
        """Let the monitor move nothing that may stay where it is, or let it do so again."""
        self.store.run(specs.pause_rebalance(self._keys, paused=paused))

    def drain(self, node: str, wait: float | None = None, *, stranded: Callable[[], Collection[str]] = tuple) -> None:
        """Hand all daemons of a node over and give it none; with ``wait`` seconds, return once it holds none.

        ``stranded`` names those that no other node can take: they stay, and are not waited for. Raises DaemonsError
        that names what is left.
        """
        self._set_drain(node, on=True)
        if wait is None:
            return
        deadline, ask_at = time.monotonic() + wait, time.monotonic() + _STRANDED_LOOK
        while any(one.name == node and one.daemons for one in self.nodes()):
            now = time.monotonic()
            if now >= ask_at or now >= deadline:
                ask_at = now + _STRANDED_LOOK
                left = {record.name for record in self.list(node=node)}
                stuck = left & set(stranded())
                if left and left == stuck:
                    raise DaemonsError(f"node {node}: no other node can take {spelled(stuck)}, which stay")
                if now >= deadline:
                    # Of a node that is lost, and of what is wanted no more, no record tells the names.
                    held = spelled(left) if left else "daemons"
                    raise DaemonsError(f"node {node} still holds {held} after {wait} s")
            time.sleep(_LONGEST_LOOK)

    def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again."""
        self._set_drain(node, on=False)

    def _set_drain(self, node: str, *, on: bool) -> None:
        if not self.store.run(lease.drain(self._keys, node_name(node), on=on)):
            known = ", ".join(one.name for one in self.nodes()) or "none"
            raise DaemonsError(f"no node {node} is registered (registered: {known})")

    def _desire(self, name: str, action: Action, *, target: str = "", avoid: str = "") -> None:
        if not self.store.run(specs.desire(self._keys, daemon_name(name), action, target=target, avoid=avoid)):
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


def spelled(names: Collection[str]) -> str:
    """Some daemons by name and number; of many, the first few."""
    shown = ", ".join(sorted(names)[:_SPELLED])
    return f"daemon {shown}" if len(names) == 1 else f"{len(names)} daemons ({shown}{', …' * (len(names) > _SPELLED)})"
