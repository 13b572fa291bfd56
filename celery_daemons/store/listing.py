"""Lists of all nodes and of all daemons: several queries each, so that no reply grows with the cluster."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from celery_daemons.domain.counts import UNHEALTHY
from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow, DaemonRecord, Node, SpecRow
from celery_daemons.domain.states import DaemonStatus
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


async def records(
    store: AsyncReader, *, node: str | None = None, launcher: str | None = None, status: str | None = None
) -> AsyncIterator[DaemonRecord]:
    """Yield every daemon that has a spec and matches all given values.

    A daemon that changes meanwhile may be seen before or after the change. With ``node``, or with a status that needs
    attention, only the daemons of that node or near that status are read.
    """
    live = {name: row for name, (row, lease_ms) in (await queries.node_rows(store)).items() if lease_ms > 0}
    seen = set[DaemonName]()
    async for page in _names(store, node=node, status=status):
        names = [name for name in page if name not in seen]
        seen.update(names)
        for start in range(0, len(names), BATCH):
            chunk = names[start : start + BATCH]
            for name, (spec, row) in zip(chunk, await queries.rows(store, chunk), strict=True):
                if spec is None or (launcher is not None and spec.launcher != launcher):
                    continue
                record = queries.record(name, spec, row, live.get(row.node) if row and row.node else None)
                if (node is None or record.node == node) and (status is None or record.status == status):
                    yield record


async def _names(store: AsyncReader, *, node: str | None, status: str | None) -> AsyncIterator[list[DaemonName]]:
    """Yield names of daemons that may match, a page at a time."""
    if status is not None and DaemonStatus(status) in UNHEALTHY:
        score = UNHEALTHY[DaemonStatus(status)]
        yield list(await unhealthy(store, score, score))
    elif node is not None:
        cursor = 0
        while True:
            cursor, held = await _held(store, NodeName(node), cursor)
            yield [DaemonName(text(name)) for name in held]
            if cursor == 0:
                return
    else:
        async for page in pages(store, store.keys.specs, SpecRow):
            yield [name for name, spec in page.items() if spec is not None]


@query
def _held(keys: Keys, node: NodeName, cursor: int) -> Query[tuple[int, list[bytes]]]:
    """Return the cursor of the next page of a node's daemons, 0 after the last, and a page of names."""
    return Query(lambda client: client.sscan(keys.held(node), cursor, count=BATCH), tuple)


@query
def unhealthy(keys: Keys, lowest: int | str = "-inf", highest: int | str = "+inf") -> Query[dict[DaemonName, int]]:
    """Return the daemons that the index has in a range of statuses, with the numbers of their statuses."""

    def ask(client: Any) -> Any:
        return client.zrange(keys.unhealthy, lowest, highest, byscore=True, withscores=True)

    return Query(ask, lambda found: {DaemonName(text(name)): int(score) for name, score in found})
