"""Run many small jobs from a table: one daemon per tenant, each with its own interval.

    python -m examples.poller_per_tenant 1200           # make a table of 1,200 tenants
    celery -A examples.poller_per_tenant worker         # start a second one to see them share
    redis-cli hlen polls

The recovery scanner reads the table page by page, so the table may be large. An added row runs after the next scan.
The daemon of a deleted row is stopped (``prune``).
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any

from celery import Celery
from redis.asyncio import BlockingConnectionPool, Redis

from celery_daemons import DaemonContext, Daemons, DaemonSpec

DATABASE = os.environ.get("TENANTS_DB", "tenants.sqlite3")
PAGE = 500

app = Celery("poller_per_tenant", broker="redis://localhost:6379/0")  # CELERY_BROKER_URL in the environment wins
daemons = Daemons(app, namespace="pollers")


@cache
def redis() -> Any:
    """Return the client of this process; thousands of daemons share its eight connections."""
    return Redis(connection_pool=BlockingConnectionPool.from_url(app.conf.broker_url, max_connections=8))


@daemons.launcher("poll", prune=True)
async def poll(ctx: DaemonContext, tenant: int, every: float) -> None:
    """Poll one tenant repeatedly; here, only count the polls."""
    while True:
        await redis().hincrby("polls", str(tenant), 1)
        await ctx.sleep(every)


@poll.recovery_scanner
def every_tenant() -> Iterator[list[DaemonSpec]]:
    """List every tenant, page by page."""
    with closing(sqlite3.connect(DATABASE)) as database:
        last = 0
        while rows := database.execute(
            "select id, every from tenants where id > ? order by id limit ?", (last, PAGE)
        ).fetchall():
            yield [poll.spec(f"poll.{tenant}", tenant, every) for tenant, every in rows]
            last = rows[-1][0]


def make_table(count: int) -> None:
    """Create the table of tenants, replacing an existing one."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("drop table if exists tenants")
        database.execute("create table tenants (id integer primary key, every real not null)")
        rows = ((tenant, 1.0 + tenant % 10) for tenant in range(1, count + 1))
        database.executemany("insert into tenants values (?, ?)", rows)


if __name__ == "__main__":
    make_table(int(sys.argv[1]))
