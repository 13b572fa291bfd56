"""Look-ups for the price of one HGET: who vouches for an entry is known for as long as its lease is known to run."""

from collections.abc import Iterable
from dataclasses import dataclass

from celery_daemons.domain.names import DaemonName, NodeName, daemon_name
from celery_daemons.domain.records import Address, BookRow, NodeRow
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import Store
from celery_daemons.store.script import BATCH


@dataclass(frozen=True, slots=True)
class _Voucher:
    """A node's record, and until when on the lease clock its lease runs without another word of it."""

    row: NodeRow
    until: float


class Locator:
    """Reads entries fresh from Redis, and remembers leases until the end that Redis named.

    A lease that was read to run for another while cannot end sooner: nobody sweeps its node before, and a node that
    leaves by itself has released every daemon, so that no entry names it. Until then an entry that names this
    incarnation needs no second look. The memory ends a lease early, never late: it counts from before the question.
    Only a new agent beside a worker whose agent has died takes a lease over while it runs: until it claims the daemons,
    they are found where they ran.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._vouchers: dict[NodeName, _Voucher] = {}
        self._fresh_until = 0.0

    def locate(self, name: str) -> Address | None:
        """Where a daemon is; ``None`` unless the lease of its node runs. Raises InvalidName, StoreUnavailable."""
        wanted = daemon_name(name)
        if lease_clock() < self._fresh_until:
            row = decode_or_none(BookRow, self._store.entry(wanted))
            if row is None or row.node is None:
                return None
            voucher = self._vouchers.get(row.node)
            if voucher is not None and voucher.row.incarnation == row.incarnation and lease_clock() < voucher.until:
                return queries.address(wanted, row, voucher.row)
        # The first time, when a lease that was known has ended, or for a node that has joined since.
        (row,) = self._learn([wanted])
        return self._address(wanted, row, lease_clock())

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """The same for many, those found: one round trip per 1,000, one more where a node has joined meanwhile."""
        wanted = [daemon_name(name) for name in dict.fromkeys(names)]
        found: dict[str, Address] = {}
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            # The first page brings the nodes along: nothing is known of those that joined since the last question.
            rows = None if start == 0 or self._is_stale() else queries.entries(self._store, batch)
            if rows is None or self._is_stale() or any(row is not None and self._is_strange(row) for row in rows):
                rows = self._learn(batch)
            now = lease_clock()
            for name, row in zip(batch, rows, strict=True):
                address = self._address(name, row, now)
                if address is not None:
                    found[name] = address
        return found

    def _is_stale(self) -> bool:
        """Whether a lease that was read to run may have ended."""
        return lease_clock() >= self._fresh_until

    def _is_strange(self, row: BookRow) -> bool:
        """Whether an entry names an incarnation that was not there when the nodes were read."""
        voucher = self._vouchers.get(row.node) if row.node is not None else None
        return row.node is not None and (voucher is None or voucher.row.incarnation != row.incarnation)

    def _address(self, name: DaemonName, row: BookRow | None, now: float) -> Address | None:
        voucher = self._vouchers.get(row.node) if row is not None and row.node is not None else None
        return queries.address(name, row, voucher.row) if voucher is not None and now < voucher.until else None

    def _learn(self, names: list[DaemonName]) -> list[BookRow | None]:
        """Read entries and all leases in one round trip."""
        asked = lease_clock()
        rows, nodes = queries.entries_and_nodes(self._store, names)
        vouchers = {node: _Voucher(record, asked + left / 1000) for node, (record, left) in nodes.items() if left > 0}
        self._vouchers = vouchers
        self._fresh_until = min((voucher.until for voucher in vouchers.values()), default=0.0)
        return rows
