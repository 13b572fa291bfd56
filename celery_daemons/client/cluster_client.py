"""Change what should run in a cluster: calls write to Redis, and the monitor and the nodes carry them out.

The calls are coroutines over :class:`~celery_daemons.client.cluster_io.ClusterIO`. With blocking I/O the same calls run
without an event loop.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from celery_daemons.client.actor import current_actor
from celery_daemons.client.cluster_io import ClusterIO
from celery_daemons.client.dry_run import Options, even_moves, stranded_daemons, suitable_nodes
from celery_daemons.client.lookups import AsyncLookups
from celery_daemons.client.wording import listed
from celery_daemons.domain.names import DaemonName, LauncherName, Token, daemon_name, launcher_name, node_name
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import Address
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.errors import ConfigurationError, DaemonsError, SpawnTimeout, SpecConflict
from celery_daemons.settings import Settings
from celery_daemons.store import journal, lease, queries, specs
from celery_daemons.store.specs import Action, RecordMode, RecordOutcome
from celery_daemons.wire.arguments import encode_arguments

#: Seconds between two checks while waiting: at first, and at most. A start takes a few milliseconds.
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1
#: Each pause is this much longer than the one before.
_PAUSE_GROWTH: Final = 1.3
#: Seconds after which a wait checks once whether the daemon is stopped and the wait therefore pointless.
_CHECK_STOPPED_AFTER: Final = 0.2
#: Seconds between two checks which daemons cannot leave a draining node: each check reads the whole address book.
_STRANDED_CHECK_INTERVAL: Final = 1.0

#: Returns the daemons on a node that no other node can take.
Stranded = Callable[[], Awaitable[Collection[str]]]


class AsyncClusterClient:
    """Changes to a namespace of Redis; :attr:`lookups` reads the state. Every method may raise StoreUnavailable.

    ``vnodes`` is the number of points per node on the hash ring, as in ``daemons_vnodes``.
    """

    def __init__(self, io: ClusterIO, *, vnodes: int) -> None:
        self._io = io
        self.lookups = AsyncLookups(io, vnodes=vnodes)

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._io.close()

    async def spawn(
        self,
        name: str,
        launcher: LauncherName,
        args: Any,
        kwargs: Any,
        *,
        wait: float | None = None,
        replace: bool = False,
    ) -> Address | None:
        """Record that a daemon should run; with ``wait`` seconds, return once the daemon runs.

        Without ``wait``, returns the current address, if there is one. Raises SpecConflict, SpawnTimeout, InvalidName,
        and ConfigurationError for arguments that have no JSON form.
        """
        arguments = encode_arguments(name, args, kwargs)
        before = await self.lookups.locate(name) if replace else None
        outcome = await self.want(name, launcher, arguments, replace=replace)
        if wait is None:
            return await self.lookups.locate(name)
        # The replaced daemon may keep running for a moment under its old token: wait for a newer one.
        newer_than = before.token if before is not None and outcome == "replaced" else None
        return await self.wait_running(name, within=wait, newer_than=newer_than)

    async def want(self, name: str, launcher: str, arguments: str, *, replace: bool = False) -> RecordOutcome:
        """Record a spec with encoded arguments, and return the outcome. Raises SpecConflict, InvalidName."""
        item = (daemon_name(name), launcher_name(launcher), arguments)
        mode: RecordMode = "replace" if replace else "spawn"
        (outcome,) = await self._io.run(specs.record(self._io.keys, [item], mode=mode, actor=current_actor()))
        if outcome == "conflict":
            ((spec, _),) = await queries.rows(self._io, [item[0]])
            # Without the arguments: the error of a launcher's task is written to a worker's log.
            taken = f" by a spec of launcher {spec.launcher}" if spec else ""
            if spec and spec.launcher == launcher:
                taken += " with other arguments"
            raise SpecConflict(
                f"daemon {name}: the name is taken{taken} (`celery -A … daemons describe {name}` shows it); "
                "choose another name, or replace the spec with replace=True or --replace"
            )
        return outcome

    async def wait_running(
        self,
        name: str,
        *,
        within: float,
        newer_than: Token | None = None,
        on: str | None = None,
        off: str | None = None,
    ) -> Address:
        """Wait up to ``within`` seconds until a daemon runs, and return the address.

        If given, the token must be newer than ``newer_than``, and the node must be ``on`` and must not be ``off``.
        Raises SpawnTimeout with the reason why the daemon does not run.
        """
        wanted = daemon_name(name)
        began = time.monotonic()
        deadline = began + within
        pause, checked_stopped = _FIRST_PAUSE, False
        while True:
            address = await self.lookups.locate(wanted)
            if (
                address is not None
                and address.status is DaemonStatus.RUNNING
                and (newer_than is None or address.token > newer_than)
                and on in (None, address.node)
                and off != address.node
            ):
                return address
            left = deadline - time.monotonic()
            if left <= 0:
                there = f" on {on}" if on else ""
                why = await self.lookups.why_not(wanted)
                raise SpawnTimeout(f"daemon {name} does not run{there} after {within} s: {why}")
            if not checked_stopped and time.monotonic() - began > _CHECK_STOPPED_AFTER:
                # Only once. If the daemon is stopped later during the wait, the error at its end says so.
                checked_stopped = True
                record = await self.lookups.record(wanted)
                if record is not None and record.desired is Desired.STOPPED:
                    raise SpawnTimeout(f"daemon {name} does not run: {await self.lookups.why_not(wanted)}")
            await self._io.sleep(min(pause, left))
            pause = min(_LONGEST_PAUSE, pause * _PAUSE_GROWTH)

    async def stop(self, name: str, wait: float | None = None) -> None:
        """Stop a daemon until :meth:`start`; with ``wait`` seconds, return once the daemon has stopped.

        Raises DaemonsError if the daemon is not known or has not stopped within ``wait``.
        """
        await self._desire(name, "stop")
        if wait is not None:
            await self._wait_gone(daemon_name(name), wait)

    async def start(self, name: str) -> None:
        """Let a stopped daemon run again. Raises DaemonsError if the daemon is not known."""
        await self._desire(name, "start")

    async def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Restart a daemon under a new token; with ``wait`` seconds, return once the daemon runs again.

        Raises DaemonsError if the daemon is not known, and SpawnTimeout.
        """
        before = await self.lookups.locate(name)
        await self._desire(name, "restart")
        if wait is None:
            return None
        return await self.wait_running(name, within=wait, newer_than=before.token if before else None)

    async def forget(self, name: str) -> bool:
        """Stop a daemon and delete the record. Returns whether the daemon was known."""
        wanted = daemon_name(name)
        call = specs.forget(self._io.keys, [wanted], cause="forgotten", actor=current_actor())
        return await self._io.run(call) > 0

    async def rescan(self, launcher: str | None = None) -> None:
        """Ask the monitor to run the recovery scanner of a launcher, or all scanners, now.

        Raises DaemonsError if the node of the monitor lacks a scanner that is meant.
        """
        if why := await self.lookups.why_not_scanned(launcher):
            raise DaemonsError(why)
        await self._io.run(journal.note(self._io.keys, "rescan", cause=launcher or "", actor=current_actor()))

    async def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Move a daemon to node ``to`` or, without ``to``, to any other suitable node: a stop, then a start.

        With ``wait`` seconds, return once the daemon runs there. Does nothing if it is already on ``to``. Raises
        DaemonsError if the daemon is not known or is stopped, or if no suitable node is up, and SpawnTimeout.
        """
        record = await self.lookups.record(name)
        if record is None:
            raise _unknown(name)
        if record.desired is Desired.STOPPED:
            raise DaemonsError(f"daemon {name} is stopped; `celery -A … daemons start {name}` starts it")
        before = await self.lookups.locate(name)
        nodes, required = await suitable_nodes(self._io, record.launcher)
        others = ", ".join(node for node in nodes if record.node != node) or "none"
        if to is not None and to not in nodes:
            why = f"{to!r} is not a node that is up and {required}"
            raise DaemonsError(f"daemon {name} cannot move: {why}; suitable nodes: {others}")
        if to is None and others == "none":
            raise DaemonsError(f"daemon {name} cannot move: no other node is up and {required}")
        if to is not None and before is not None and before.node == to:
            return before
        await self._desire(name, "move", target=to or "", avoid="" if to else record.node or "")
        if wait is None:
            return None
        # A newer token alone is not enough: the daemon may crash and restart on its node before it is recalled.
        newer_than, off = (before.token, before.node) if before else (None, None)
        return await self.wait_running(name, within=wait, newer_than=newer_than, on=to, off=None if to else off)

    async def rebalance(self, settings: Settings, options: Options, *, dry_run: bool = False) -> list[Move]:
        """Return the moves that would even out the load of the nodes; unless ``dry_run``, ask the monitor to rebalance.

        ``options`` returns a launcher's options by name. Raises ConfigurationError while ``daemons_rebalance`` is
        ``"off"`` and DaemonsError while rebalancing is paused; a dry run raises neither.
        """
        moves = await even_moves(self._io, settings, options)
        if dry_run:
            return moves
        if settings.rebalance == "off":
            raise ConfigurationError("daemons_rebalance is 'off': nothing is moved; set it to 'manual' or 'auto'")
        if await self.lookups.rebalance_paused():
            raise DaemonsError("rebalancing is paused; `celery -A … daemons rebalance --resume` resumes it")
        if moves:
            await self.ask_rebalance()
        return moves

    async def ask_rebalance(self) -> None:
        """Ask the monitor to even out the load of the nodes now."""
        await self._io.run(journal.note(self._io.keys, "rebalance", cause="requested", actor=current_actor()))

    async def pause_rebalance(self, *, paused: bool = True) -> None:
        """Pause or resume rebalancing: while paused, the monitor moves only daemons that cannot stay."""
        await self._io.run(specs.pause_rebalance(self._io.keys, paused=paused, actor=current_actor()))

    async def drain(self, node: str, wait: float | None = None, *, stranded: Stranded | None = None) -> None:
        """Move all daemons off a node and assign no others; with ``wait`` seconds, return once the node is empty.

        ``stranded`` returns the daemons that no other node can take; once only these are left, the wait ends. Raises
        DaemonsError with the names of the daemons that are left, and for a node that is not registered.
        """
        await self._set_drain(node, on=True)
        if wait is None:
            return
        began = time.monotonic()
        deadline, next_check_at = began + wait, began + _STRANDED_CHECK_INTERVAL
        while any(one.daemons for one in await self.lookups.nodes() if one.name == node):
            now = time.monotonic()
            if now >= next_check_at or now >= deadline:
                next_check_at = now + _STRANDED_CHECK_INTERVAL
                left = {record.name async for record in self.lookups.list(node=node)}
                stuck = left & set(await stranded()) if stranded else set[str]()
                if left and left == stuck:
                    raise DaemonsError(f"node {node}: no other node can take {listed(stuck)}; not moved")
                if now >= deadline:
                    # The records of a lost node's daemons and of forgotten daemons do not name the node.
                    held = listed(left) if left else "daemons"
                    raise DaemonsError(f"node {node} still holds {held} after {wait} s")
            await self._io.sleep(_LONGEST_PAUSE)

    async def stranded(self, settings: Settings, options: Options, node: str) -> set[str]:
        """Return the daemons on a node that no other node can take."""
        return await stranded_daemons(self._io, settings, options, node)

    async def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again. Raises DaemonsError for a node that is not registered."""
        await self._set_drain(node, on=False)

    async def _set_drain(self, node: str, *, on: bool) -> None:
        if not await self._io.run(lease.drain(self._io.keys, node_name(node), on=on, actor=current_actor())):
            known = ", ".join(one.name for one in await self.lookups.nodes()) or "none"
            raise DaemonsError(f"no node {node} is registered (registered: {known})")

    async def _desire(self, name: str, action: Action, *, target: str = "", avoid: str = "") -> None:
        more = {"actor": current_actor(), "target": target, "avoid": avoid}
        if not await self._io.run(specs.desire(self._io.keys, daemon_name(name), action, **more)):
            raise _unknown(name)

    async def _wait_gone(self, name: DaemonName, within: float) -> None:
        deadline = time.monotonic() + within
        pause = _FIRST_PAUSE
        while (address := await self.lookups.locate(name)) is not None:
            if time.monotonic() >= deadline:
                raise DaemonsError(
                    f"daemon {name} has not stopped after {within} s: it is {address.status} on {address.node}"
                )
            await self._io.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * _PAUSE_GROWTH)


def _unknown(name: str) -> DaemonsError:
    return DaemonsError(f"no daemon {name} is known; `celery -A … daemons list` shows all daemons")
