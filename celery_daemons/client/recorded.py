"""A substitute for a cluster: it keeps in memory what calls ask for, and runs nothing."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from celery_daemons.client.cluster_client import Stranded
from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain import counts
from celery_daemons.domain.names import DaemonName, LauncherName, daemon_name, launcher_name
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import Address, DaemonRecord, DaemonSpec, JournalEntry, Node
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.errors import ConfigurationError, DaemonsError, SpecConflict
from celery_daemons.wire.arguments import encode_arguments


class RecordedCluster:
    """Takes the calls of :class:`~celery_daemons.client.cluster_client.AsyncClusterClient`; no call waits.

    ``specs`` are the daemons that should run, by name. Calls check their arguments as those of a cluster do.
    """

    def __init__(self, why: str) -> None:
        self._why = why
        self._desired: dict[DaemonName, Desired] = {}
        self.specs: dict[str, DaemonSpec] = {}
        self.lookups = RecordedLookups(self)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

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
        """Record that a daemon should run, and return ``None``, as no daemon does.

        Raises SpecConflict, InvalidName and ConfigurationError as a cluster would.
        """
        encoded = encode_arguments(name, args, kwargs)
        wanted = daemon_name(name)
        known = self.specs.get(name)
        if known is not None and not replace:
            same = known.launcher == launcher and encode_arguments(name, known.args, known.kwargs) == encoded
            if not same:
                raise SpecConflict(
                    f"daemon {name}: the name is taken by a recorded spec of launcher {known.launcher}; "
                    "choose another name, or replace the spec with replace=True"
                )
        self.specs[name] = DaemonSpec(
            name=wanted, launcher=launcher_name(launcher), args=tuple(args), kwargs=dict(kwargs)
        )
        self._desired.setdefault(wanted, Desired.RUNNING)
        return None

    async def stop(self, name: str, wait: float | None = None) -> None:
        """Record that a daemon should not run. Raises DaemonsError for an unknown daemon."""
        self._desired[self._known(name)] = Desired.STOPPED

    async def start(self, name: str) -> None:
        """Record that a stopped daemon should run again. Raises DaemonsError for an unknown daemon."""
        self._desired[self._known(name)] = Desired.RUNNING

    async def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Record that a daemon should run. Raises DaemonsError for an unknown daemon."""
        await self.start(name)
        return None

    async def forget(self, name: str) -> bool:
        """Delete a daemon's record; return whether the daemon was known."""
        self._desired.pop(daemon_name(name), None)
        return self.specs.pop(name, None) is not None

    async def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Refuse: there is no node. Raises DaemonsError."""
        raise DaemonsError(f"daemon {self._known(name)} cannot move: {self._why}; there are no nodes")

    async def rescan(self, launcher: str | None = None) -> None:
        """Do nothing: no monitor runs scanners."""

    async def rebalance(self, settings: Any, options: Any, *, dry_run: bool = False) -> list[Move]:
        """Return no moves."""
        return []

    async def ask_rebalance(self) -> None:
        """Do nothing: there is nothing to move."""

    async def pause_rebalance(self, *, paused: bool = True) -> None:
        """Do nothing: there is nothing to move."""

    async def drain(self, node: str, wait: float | None = None, *, stranded: Stranded | None = None) -> None:
        """Refuse: there is no node. Raises DaemonsError."""
        raise DaemonsError(f"no node {node} is registered: {self._why}")

    async def stranded(self, settings: Any, options: Any, node: str) -> set[str]:
        """Return no daemons."""
        return set()

    async def uncordon(self, node: str) -> None:
        """Refuse: there is no node. Raises DaemonsError."""
        await self.drain(node)

    def desired(self, name: DaemonName) -> Desired:
        """Return whether a recorded daemon should run."""
        return self._desired[name]

    def _known(self, name: str) -> DaemonName:
        if name not in self.specs:
            raise DaemonsError(f"no daemon {name} is known: {self._why}, and no call has recorded it")
        return daemon_name(name)


class RecordedLookups:
    """Answers the queries of :class:`~celery_daemons.client.lookups.AsyncLookups`: no node is up, so nothing runs."""

    def __init__(self, cluster: RecordedCluster) -> None:
        self._cluster = cluster

    async def locate(self, name: str) -> Address | None:
        """Return ``None``. Raises InvalidName."""
        daemon_name(name)
        return None

    async def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return no address. Raises InvalidName."""
        for name in names:
            daemon_name(name)
        return {}

    async def nodes(self) -> list[Node]:
        """Return no node."""
        return []

    async def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> AsyncIterator[DaemonRecord]:
        """Yield the record of every recorded daemon that matches all given values."""
        if status is not None and status not in tuple(DaemonStatus):
            raise ConfigurationError(f"there is no status {status!r}; a daemon is {', '.join(DaemonStatus)}")
        for spec in tuple(self._cluster.specs.values()):
            desired = self._cluster.desired(spec.name)
            record = DaemonRecord(
                name=spec.name,
                launcher=spec.launcher,
                status=DaemonStatus.PENDING if desired is Desired.RUNNING else DaemonStatus.STOPPED,
                node=None,
                incarnation=None,
                token=None,
                queue=None,
                host=None,
                pid=None,
                started_at=None,
                restarts=0,
                error=None,
                desired=desired,
            )
            if node is None and launcher in (None, record.launcher) and status in (None, record.status):
                yield record

    async def pick_node(self, name: str) -> str | None:
        """Return ``None``: there is no node. Raises InvalidName."""
        daemon_name(name)
        return None

    async def status(self) -> ClusterStatus:
        """Return a summary with the recorded daemons only."""
        launchers: dict[str, dict[str, int]] = {}
        async for record in self.list():
            numbers = launchers.setdefault(record.launcher, counts.no_daemons())
            numbers[counts.DESIRED] += record.desired is Desired.RUNNING
            numbers[record.status] += 1
        return ClusterStatus(
            namespace="",
            leader=None,
            nodes={"up": 0, "draining": 0, "lost": 0},
            daemons=counts.total(launchers.values()),
            launchers=launchers,
            scanners={},
        )

    async def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """Return no events."""
        return ()

    async def follow_events(self, after: str | None = None) -> AsyncIterator[JournalEntry]:
        """Yield no events."""
        for entry in await self.events():
            yield entry
