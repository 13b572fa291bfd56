"""List daemons: read what may match from the narrowest index there is, and join it with specs, entries and nodes."""

from collections.abc import Iterator
from typing import Any

from celery_daemons.domain.counts import UNHEALTHY
from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import DaemonRecord, SpecRow
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.store import queries
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import Store
from celery_daemons.store.script import BATCH, text


def records(
    store: Store, *, node: str | None = None, launcher: str | None = None, status: str | None = None
) -> Iterator[DaemonRecord]:
    """Yield every daemon that has a spec and matches all given values.

    A daemon that changes meanwhile may be seen before or after the change. With ``node``, or with a status that needs
    attention, only the daemons of that node or near that status are read.
    """
    live = {name: row for name, (row, lease_ms) in queries.node_rows(store).items() if lease_ms > 0}
    seen = set[DaemonName]()
    for page in _pages(store, node=node, status=status):
        names = [name for name in page if name not in seen]
        seen.update(names)
        for start in range(0, len(names), BATCH):
            chunk = names[start : start + BATCH]
            for name, (spec, row) in zip(chunk, queries.rows(store, chunk), strict=True):
                if spec is None or (launcher is not None and spec.launcher != launcher):
                    continue
                record = queries.record(name, spec, row, live.get(row.node) if row and row.node else None)
                if (node is None or record.node == node) and (status is None or record.status == status):
                    yield record


def _pages(store: Store, *, node: str | None, status: str | None) -> Iterator[list[DaemonName]]:
    """Yield names of daemons that may match, a page at a time."""
    if status is not None and DaemonStatus(status) in UNHEALTHY:
        yield _unhealthy(store, DaemonStatus(status))
    elif node is not None:
        yield from _held(store, NodeName(node))
    else:
        cursor = 0
        while True:
            cursor, page = scan_specs(store, cursor)
            yield [name for name, spec in page.items() if spec is not None]
            if cursor == 0:
                return


def _unhealthy(store: Store, status: DaemonStatus) -> list[DaemonName]:
    score = UNHEALTHY[status]
    names = store.read(lambda client: client.zrange(store.keys.unhealthy, score, score, byscore=True))
    return [DaemonName(text(name)) for name in names]


def unhealthy(store: Store) -> dict[DaemonName, int]:
    """Return the daemons that the index has, with the numbers of their statuses."""
    indexed = store.read(lambda client: client.zrange(store.keys.unhealthy, 0, -1, withscores=True))
    return {DaemonName(text(name)): int(score) for name, score in indexed}


def _held(store: Store, node: NodeName) -> Iterator[list[DaemonName]]:
    key, cursor = store.keys.held(node), 0
    while True:

        def query(client: Any, at: int = cursor) -> Any:
            return client.sscan(key, at, count=BATCH)

        cursor, page = store.read(query)
        yield [DaemonName(text(name)) for name in page]
        if cursor == 0:
            return


def scan_specs(store: Store, cursor: int) -> tuple[int, dict[DaemonName, SpecRow | None]]:
    """Return the cursor of the next page, 0 after the last, and a page of specs; a corrupt record is ``None``."""
    cursor, page = store.read(lambda client: client.hscan(store.keys.specs, cursor, count=BATCH))
    return cursor, {DaemonName(text(name)): decode_or_none(SpecRow, raw) for name, raw in page.items()}
