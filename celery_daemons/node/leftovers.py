"""Release what is assigned to a node that runs nothing."""

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.runs import Release
from celery_daemons.domain.states import Outcome
from celery_daemons.store import assignments, book
from celery_daemons.store.connection import AsyncStore
from celery_daemons.store.script import BATCH


async def release_all(store: AsyncStore, node: NodeName) -> None:
    """Release every daemon of a node whose hosts are dead. Raises StoreUnavailable."""
    cursor = "0"
    while True:
        page = await store.run(assignments.page(store.keys, node, cursor))
        # A record that cannot be read names no token to release it under.
        releases = [
            Release(name=name, token=row.token, outcome=Outcome.STOPPED, restarts=row.restarts)
            for name, row in page.rows.items()
            if row is not None
        ]
        for start in range(0, len(releases), BATCH):
            await store.run(book.release(store.keys, node, releases[start : start + BATCH]))
        cursor = page.cursor
        if cursor == "0":
            return
