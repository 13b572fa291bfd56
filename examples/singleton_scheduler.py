"""Tick once per second, however many workers there are: one daemon sends a Celery task every second.

celery -A examples.singleton_scheduler worker --hostname a@%h
celery -A examples.singleton_scheduler worker --hostname b@%h      # kill either one: the ticks continue
redis-cli lrange ticks -10 -1
"""

import time
from collections.abc import Iterator

from celery import Celery
from redis import Redis

from celery_daemons import BlockingDaemonContext, Daemons, DaemonSpec

EVERY = 1.0

app = Celery("singleton_scheduler", broker="redis://localhost:6379/0")  # CELERY_BROKER_URL in the environment wins
daemons = Daemons(app, namespace="scheduler")


@app.task(ignore_result=True)
def tick(number: int, token: int) -> None:
    """Record a tick; an ordinary task, run by any worker."""
    with Redis.from_url(app.conf.broker_url) as redis:
        redis.rpush("ticks", f"{number} sent under token {token}")


# A thread is enough for a plain def that mostly sleeps, and needs no process of its own.
@daemons.launcher("scheduler", isolation="thread")
def scheduler(ctx: BlockingDaemonContext) -> None:
    """Send a tick at every full second, and skip missed seconds."""
    while not ctx.stopping.is_set():
        ctx.sleep(EVERY - time.time() % EVERY)
        if not ctx.stopping.is_set():
            # A tick that no worker has started before the next one expires, so that old ticks do not pile up.
            tick.apply_async((round(time.time()), ctx.token), expires=EVERY)


@scheduler.recovery_scanner
def only_one() -> Iterator[DaemonSpec]:
    """List the scheduler."""
    yield scheduler.spec("scheduler")
