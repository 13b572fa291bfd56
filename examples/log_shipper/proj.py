"""Run one daemon per log file; it ships every line into Redis exactly once, whatever happens to workers.

export CELERY_BROKER_URL=redis://localhost:6379/0 LOGS_GLOB='/var/log/*.log'
celery -A examples.log_shipper.proj worker          # start several, each with its own --hostname
"""

import logging
import os
from collections.abc import Iterator
from functools import cache
from glob import glob

from celery import Celery

from celery_daemons import DaemonContext, Daemons, DaemonSpec, InvalidName
from examples.log_shipper.follow import read_lines
from examples.log_shipper.sink import Sink

logger = logging.getLogger(__name__)

#: Every node must see the same files here: on a shared volume, or on one machine.
LOGS_GLOB = os.environ.get("LOGS_GLOB", "/logs/*.log")

#: Seconds between reads of a file that has not grown: the longest time that a line waits.
IDLE = 0.1

app = Celery("log_shipper", broker="redis://localhost:6379/0")  # CELERY_BROKER_URL in the environment wins
daemons = Daemons(app)


@cache
def sink() -> Sink:
    """Return the sink of this process, created at first use because this module is imported before hosts are forked."""
    return Sink(app.conf.broker_url)


@daemons.launcher("ship", prune=True)
async def ship(ctx: DaemonContext, path: str) -> None:
    """Follow one file. After an error the daemon restarts from the position in Redis."""
    position = await sink().take_over(path, ctx.token)
    while True:
        lines, after = read_lines(path, position)
        if after == position:
            await ctx.sleep(IDLE)
        else:
            position = await sink().append(path, ctx.token, lines, before=position, after=after)


@ship.recovery_scanner
def every_log() -> Iterator[DaemonSpec]:
    """List one daemon for each existing file. The elected monitor calls this periodically."""
    for path in sorted(filter(os.path.isfile, glob(LOGS_GLOB))):  # noqa: PTH207 - an absolute pattern
        try:
            yield ship.spec(f"ship:{path}", path)
        except InvalidName as error:
            logger.warning("%s is not shipped: %s", path, error)
