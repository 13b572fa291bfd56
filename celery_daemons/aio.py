"""The calls of ``Daemons`` as coroutines. ``Daemons`` itself runs the same coroutines over blocking I/O."""

import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from celery_daemons.client.cluster_client import AsyncClusterClient
from celery_daemons.client.lookups import AsyncLookups, ClusterStatus
from celery_daemons.client.recorded import RecordedCluster, RecordedLookups
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import Address, DaemonRecord, JournalEntry, Node
from celery_daemons.errors import ConfigurationError
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.settings import Settings

#: A cluster, or the substitute that records calls in memory.
AnyCluster = AsyncClusterClient | RecordedCluster


class Aio:
    """The calls that find and manage daemons. ``cluster`` returns the client that carries a call out."""

    def __init__(
        self, launchers: Registry, settings: Callable[[], Settings], cluster: Callable[[], AnyCluster]
    ) -> None:
        self._launchers = launchers
        self._settings = settings
        self._cluster = cluster

    @property
    def _lookups(self) -> AsyncLookups | RecordedLookups:
        return self._cluster().lookups

    # Finding

    async def locate(self, name: str) -> Address | None:
        """Return the address of a daemon, or ``None`` if no node with a valid lease holds the daemon.

        One round trip to Redis.
        """
        return await self._lookups.locate(name)

    async def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return addresses by daemon name, without daemons that have no address. A round trip per 1,000 names."""
        return await self._lookups.locate_many(names)

    async def nodes(self) -> builtins.list[Node]:
        """Return every registered node, sorted by name."""
        return await self._lookups.nodes()

    async def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> AsyncIterator[DaemonRecord]:
        """Yield the record of every known daemon that matches all given values, unsorted.

        Raises :exc:`~celery_daemons.ConfigurationError` for an unknown status.
        """
        async for record in self._lookups.list(node, launcher, status):
            yield record

    async def pick_node(self, name: str) -> str | None:
        """Return the node that the hash ring prefers for a name, whether or not such a daemon runs.

        Returns ``None`` while no node takes daemons.
        """
        return await self._lookups.pick_node(name)

    async def status(self) -> ClusterStatus:
        """Return a summary of the cluster: leader, nodes and daemons by status, and scanners."""
        return await self._lookups.status()

    async def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """Return the last entries of the journal, oldest first."""
        return await self._lookups.events(last=last)

    async def follow_events(self, after: str | None = None) -> AsyncIterator[JournalEntry]:
        """Yield entries of the journal as they are written, without end.

        Begins after the entry with the id ``after``, or with the next entry. Raises
        :exc:`~celery_daemons.StoreUnavailable` while Redis does not answer; continue with the id of the last entry.
        """
        async for entry in self._lookups.follow_events(after):
            yield entry

    # Managing

    async def spawn(
        self,
        name: str,
        launcher: str | Launcher[...],
        *,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        wait: float | None = None,
        replace: bool = False,
    ) -> Address | None:
        """Record that daemon ``name`` should run; with ``wait`` seconds, return once the daemon runs.

        Without ``wait``, returns the current address, or ``None`` if there is none yet. Recording the same spec again
        changes nothing. A different spec under the same name raises :exc:`~celery_daemons.SpecConflict` unless
        ``replace`` is true.

        Raises :exc:`~celery_daemons.UnknownLauncher`, :exc:`~celery_daemons.ConfigurationError` for arguments that the
        launcher does not take or that have no JSON form of up to 1 MiB, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        known = self._known(launcher)
        given, named = known.bound(name, args, kwargs or {})
        return await self._cluster().spawn(name, known.name, given, named, wait=wait, replace=replace)

    async def stop(self, name: str, wait: float | None = None) -> None:
        """Stop a daemon until :meth:`start`; with ``wait`` seconds, return once the daemon has stopped.

        A stopped daemon stays stopped even if a scanner lists it. Raises :exc:`~celery_daemons.DaemonsError` if the
        daemon is not known or has not stopped within ``wait``.
        """
        await self._cluster().stop(name, wait)

    async def start(self, name: str) -> None:
        """Let a stopped daemon run again.

        Raises :exc:`~celery_daemons.DaemonsError` if the daemon is not known.
        """
        await self._cluster().start(name)

    async def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Restart a daemon under a new token; with ``wait`` seconds, return once the daemon runs again.

        Raises :exc:`~celery_daemons.DaemonsError` if the daemon is not known, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        return await self._cluster().restart(name, wait)

    async def forget(self, name: str) -> bool:
        """Stop a daemon and delete the record. Returns whether the daemon was known."""
        return await self._cluster().forget(name)

    async def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Move a daemon to node ``to`` or, without ``to``, to any other suitable node: a stop, then a start.

        With ``wait`` seconds, returns once the daemon runs there. Raises :exc:`~celery_daemons.DaemonsError` if the
        daemon is not known or is stopped, or if no suitable node is up, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        return await self._cluster().move(name, to, wait)

    async def rebalance(self, dry_run: bool = False) -> builtins.list[Move]:
        """Even out the load of the nodes to within a tenth of the fair shares, and return the moves this takes.

        The monitor makes the moves, at most the share ``daemons_rebalance_limit`` of all daemons at a time. A dry run
        only returns the moves. Raises :exc:`~celery_daemons.ConfigurationError` while ``daemons_rebalance`` is
        ``"off"`` and :exc:`~celery_daemons.DaemonsError` while rebalancing is paused.
        """
        return await self._cluster().rebalance(self._settings(), self._launchers.options_of, dry_run=dry_run)

    async def pause_rebalance(self) -> None:
        """Pause rebalancing until :meth:`resume_rebalance`: the monitor moves only daemons that cannot stay."""
        await self._cluster().pause_rebalance()

    async def resume_rebalance(self) -> None:
        """Resume rebalancing after :meth:`pause_rebalance`."""
        await self._cluster().pause_rebalance(paused=False)

    async def drain(self, node: str, wait: float | None = None) -> None:
        """Move all daemons off a node and assign no others; with ``wait`` seconds, return once the node is empty.

        Raises :exc:`~celery_daemons.DaemonsError` for a node that is not registered and, with ``wait``, with the names
        of the daemons that are left. Daemons that no other node can take stay; once only these are left, the wait ends.
        """
        await self._cluster().drain(node, wait, stranded=lambda: self.stranded(node))

    async def stranded(self, node: str) -> set[str]:
        """Return the daemons on a node that no other node can take: no other has the launcher and the labels."""
        return await self._cluster().stranded(self._settings(), self._launchers.options_of, node)

    async def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again.

        Raises :exc:`~celery_daemons.DaemonsError` for a node that is not registered.
        """
        await self._cluster().uncordon(node)

    async def rescan(self, launcher: str | Launcher[...] | None = None) -> None:
        """Ask the monitor to run the recovery scanner of a launcher, or all scanners, now.

        Raises :exc:`~celery_daemons.UnknownLauncher`, and :exc:`~celery_daemons.ConfigurationError` for a launcher
        without a scanner.
        """
        known = None if launcher is None else self._known(launcher)
        if known is not None and known.scanner is None:
            raise ConfigurationError(
                f"launcher {known.name} has no recovery scanner: add one with its decorator recovery_scanner"
            )
        await self._cluster().rescan(None if known is None else known.name)

    async def close(self) -> None:
        """Close the connections of the running event loop. The next call opens new ones.

        Needed only on a loop that is closed without ``shutdown_asyncgens()``, which :func:`asyncio.run` calls.
        """
        await self._cluster().close()

    def _known(self, launcher: str | Launcher[...]) -> Launcher[...]:
        return self._launchers[launcher.name if isinstance(launcher, Launcher) else launcher]
