"""Locate daemons with one ``HGET`` each, by remembering how long each node's lease is valid."""

from collections.abc import Iterable
from dataclasses import dataclass

from celery_daemons.client.cluster_io import ClusterIO
from celery_daemons.domain.names import DaemonName, NodeName, daemon_name
from celery_daemons.domain.records import Address, BookRow, NodeRow
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.script import BATCH


@dataclass(frozen=True, slots=True)
class _NodeLeaseSeen:
    """A node's record, and the time on the lease clock until which the lease is valid without a renewal."""

    row: NodeRow
    until: float


class Locator:
    """Reads entries from Redis for every look-up, and remembers leases until the end that Redis reported.

    A lease cannot end before the end that was read: no monitor sweeps its node earlier, and a node that leaves
    gracefully has released every daemon, so that no entry names that node. Until then, an entry that names the
    remembered incarnation is valid without another query. The remembered end is never later than the real end, as it
    counts from before the query was sent.

    There is one case in which a valid lease changes hands: when a worker's agent dies, the next agent takes the lease
    over. Until that agent claims the daemons, look-ups return the addresses where they ran.
    """

    def __init__(self, io: ClusterIO) -> None:
        self._io = io
        self._leases: dict[NodeName, _NodeLeaseSeen] = {}
        self._all_valid_until = 0.0

    async def locate(self, name: str) -> Address | None:
        """Return a daemon's address, or ``None`` unless the lease of the node is valid.

        Raises InvalidName and StoreUnavailable.
        """
        wanted = daemon_name(name)
        if lease_clock() < self._all_valid_until:
            row = decode_or_none(BookRow, await self._io.entry(wanted))
            if row is None or row.node is None:
                return None
            lease = self._leases.get(row.node)
            if lease is not None and lease.row.incarnation == row.incarnation and lease_clock() < lease.until:
                return queries.address(wanted, row, lease.row)
        # First use, a remembered lease has ended, or a node has joined since the leases were read.
        (row,) = await self._read_with_leases([wanted])
        return self._address(wanted, row, lease_clock())

    async def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return addresses by daemon name, without daemons that have no address.

        One round trip per 1,000 names, and another if a node has joined meanwhile. Raises InvalidName and
        StoreUnavailable.
        """
        wanted = [daemon_name(name) for name in dict.fromkeys(names)]
        found: dict[str, Address] = {}
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            # The first page also reads the leases: nodes may have joined since the previous call.
            rows = None if start == 0 or self._is_stale() else await queries.entries(self._io, batch)
            if rows is None or self._is_stale() or any(row is not None and self._is_strange(row) for row in rows):
                rows = await self._read_with_leases(batch)
            now = lease_clock()
            for name, row in zip(batch, rows, strict=True):
                address = self._address(name, row, now)
                if address is not None:
                    found[name] = address
        return found

    def _is_stale(self) -> bool:
        """Return whether a remembered lease may have ended."""
        return lease_clock() >= self._all_valid_until

    def _is_strange(self, row: BookRow) -> bool:
        """Return whether an entry names an incarnation that is not remembered."""
        lease = self._leases.get(row.node) if row.node is not None else None
        return row.node is not None and (lease is None or lease.row.incarnation != row.incarnation)

    def _address(self, name: DaemonName, row: BookRow | None, now: float) -> Address | None:
        lease = self._leases.get(row.node) if row is not None and row.node is not None else None
        return queries.address(name, row, lease.row) if lease is not None and now < lease.until else None

    async def _read_with_leases(self, names: list[DaemonName]) -> list[BookRow | None]:
        """Read entries and all leases in a single round trip, and remember the leases."""
        asked_at = lease_clock()
        rows, nodes = await queries.entries_and_nodes(self._io, names)
        self._leases = {
            node: _NodeLeaseSeen(record, asked_at + left / 1000) for node, (record, left) in nodes.items() if left > 0
        }
        self._all_valid_until = min((lease.until for lease in self._leases.values()), default=0.0)
        return rows
