"""Apps whose daemons no worker runs, and the connections that their calls open."""

from typing import Any

import redis
from celery import Celery

from celery_daemons import Daemons
from tests.support.servers import Server
from tests.support.waiting import wait_until


def app_at(url: str, namespace: str) -> Daemons:
    """Return an app with a launcher, whose daemons no worker runs."""
    daemons = Daemons(Celery("proj", broker=url), namespace=namespace)

    @daemons.launcher
    async def feed(ctx: Any, number: int = 0) -> None:
        """Do nothing."""

    return daemons


def connections(server: Server) -> int:
    """Return the number of connections to a server, without the one that asks."""
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def wait_unconnected(server: Server) -> None:
    """Wait until nothing is connected to a server."""
    wait_until(lambda: connections(server) == 0, within=30.0, because="every connection was closed")


async def names_of(daemons: Daemons) -> list[str]:
    """Return the names of all daemons."""
    return [record.name async for record in daemons.aio.list()]
