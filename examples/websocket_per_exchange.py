"""Keep a connection open exactly once: one daemon per exchange, which reconnects after errors.

    celery -A examples.websocket_per_exchange worker
    redis-cli hgetall prices

The exchanges are invented. With real ones, replace ``connect`` by ``websockets.connect``; nothing else changes.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from celery import Celery
from redis.asyncio import Redis

from celery_daemons import DaemonContext, Daemons, DaemonSpec

EXCHANGES = {"amsterdam": "wss://ams.example", "lisbon": "wss://lis.example", "vienna": "wss://vie.example"}

app = Celery("websocket_per_exchange", broker="redis://localhost:6379/0")  # CELERY_BROKER_URL in the environment wins
daemons = Daemons(app, namespace="tickers")


@cache
def redis() -> Any:
    """Return the client of this process, created at first use."""
    return Redis.from_url(app.conf.broker_url)


# backoff: a broken connection is an error like any other. The daemon restarts, with longer delays if that repeats.
@daemons.launcher("ticker", backoff=0.2, backoff_max=30)
async def ticker(ctx: DaemonContext, exchange: str, url: str) -> None:
    """Keep the last price of one exchange in Redis."""
    async with connect(url) as feed:
        ctx.log.info("connected to %s", url)
        async for price in feed:
            await redis().hset("prices", exchange, price)


@ticker.recovery_scanner
def every_exchange() -> list[DaemonSpec]:
    """List one daemon per exchange."""
    return [ticker.spec(f"ticker.{exchange}", exchange, url) for exchange, url in EXCHANGES.items()]


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AsyncIterator[str]]:
    """Open an invented feed that breaks now and then."""
    yield _prices(url)


async def _prices(url: str) -> AsyncIterator[str]:
    price = 100.0
    while random.random() > 0.001:
        price *= random.uniform(0.99, 1.01)
        yield f"{price:.2f}"
        await asyncio.sleep(0.1)
    raise ConnectionError(f"{url} hung up")
