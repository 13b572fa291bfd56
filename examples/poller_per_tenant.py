"""Many small jobs from a table: one daemon for each tenant, each with an interval of its own.

    python -m examples.poller_per_tenant 1200           # makes a table of so many tenants
    celery -A examples.poller_per_tenant worker         # and a second one, and see them share
    redis-cli hlen polls

The recovery scanner reads the table a page at a time, so it may be long. A row that is added runs after the next scan;
one that is deleted is stopped (``prune``).
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
    """One client for all daemons of a process; thousands of them share eight connections."""
    return Redis(connection_pool=BlockingConnectionPool.from_url(app.conf.broker_url, max_connections=8))


@daemons.launcher("poll", prune=True)
async def poll(ctx: DaemonContext, tenant: int, every: float) -> None:
    """Ask for one tenant's news, again and again; here, only count how often."""
    while True:
        await redis().hincrby("polls", str(tenant), 1)
        await ctx.sleep(every)


@poll.recovery_scanner
def every_tenant() -> Iterator[list[DaemonSpec]]:
    """Every tenant, a page at a time."""
    with closing(sqlite3.connect(DATABASE)) as database:
        last = 0
        while rows := database.execute(
            "select id, every from tenants where id > ? order by id limit ?", (last, PAGE)
        ).fetchall():
            yield [poll.spec(f"poll.{tenant}", tenant, every) for tenant, every in rows]
            last = rows[-1][0]


def make_table(count: int) -> None:
    """Begin a table of tenants anew."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("drop table if exists tenants")
        database.execute("create table tenants (id integer primary key, every real not null)")
        rows = ((tenant, 1.0 + tenant % 10) for tenant in range(1, count + 1))
        database.executemany("insert into tenants values (?, ?)", rows)


if __name__ == "__main__":
    make_table(int(sys.argv[1]))
