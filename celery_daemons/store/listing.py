"""Lists of all nodes and of all daemons: several queries each, so that no reply grows with the cluster."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow, DaemonRecord, Node, SpecRow
from celery_daemons.store import queries
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.keys import Keys
from celery_daemons.store.query import AsyncReader, Query, query
from celery_daemons.store.script import BATCH, text

R = TypeVar("R", BookRow, SpecRow)


@query
def held_counts(keys: Keys, names: Sequence[NodeName]) -> Query[list[int]]:
    """Return the number of daemons that each node holds."""

    def ask(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.scard(keys.held(name))
        return pipe.execute()

    return Query(ask, list)


async def nodes(store: AsyncReader) -> list[Node]:
    """Return every registered node with the number of daemons, sorted by name."""
    rows = await queries.node_rows(store)
    counts = await held_counts(store, list(rows))
    return sorted(
        (queries.node(name, *row, daemons=count) for (name, row), count in zip(rows.items(), counts, strict=True)),
        key=lambda entry: entry.name,
    )


@query
def _page(keys: Keys, key: str, cursor: int) -> Query[tuple[int, dict[bytes, bytes]]]:
    """Return the cursor of the next page of a hash, 0 after the last, and a page of undecoded records."""
    return Query(lambda client: client.hscan(key, cursor, count=BATCH), tuple)


async def pages(store: AsyncReader, key: str, kind: type[R]) -> AsyncIterator[dict[DaemonName, R | None]]:
    """Yield all records of the hash ``key`` in pages, each a corrupt record as ``None``, a name perhaps twice."""
    cursor = 0
    while True:
        cursor, page = await _page(store, key, cursor)
        yield {DaemonName(text(name)): decode_or_none(kind, raw) for name, raw in page.items()}
        if cursor == 0:
            return


async def records(store: AsyncReader) -> AsyncIterator[DaemonRecord]:
    """Yield every daemon that has a spec; a daemon that changes meanwhile may be seen before or after the change."""
    live = {name: row for name, (row, lease_ms) in (await queries.node_rows(store)).items() if lease_ms > 0}
    seen = set[DaemonName]()
    async for page in pages(store, store.keys.specs, SpecRow):
        names = [name for name, spec in page.items() if spec is not None and name not in seen]
        seen.update(names)
        for start in range(0, len(names), BATCH):
            chunk = names[start : start + BATCH]
            for name, (spec, row) in zip(chunk, await queries.rows(store, chunk), strict=True):
                if spec is not None:
                    yield queries.record(name, spec, row, live.get(row.node) if row and row.node else None)
