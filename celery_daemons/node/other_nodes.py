"""Whether the daemons of a node have another node to go to."""

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import text


async def has_other_nodes(store: AsyncStore, node: NodeName) -> bool:
    """Return whether a node besides ``node`` takes daemons. Raises StoreUnavailable."""
    raw = await store.read(lambda client: client.hgetall(store.keys.nodes))
    rows = {text(name): decode_or_none(NodeRow, row) for name, row in raw.items()}
    return any(row is not None and row.takes_daemons for name, row in rows.items() if name != node)
