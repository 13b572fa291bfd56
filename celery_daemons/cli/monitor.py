"""``monitor``: a candidate for the monitor without a worker, as ``celery beat`` is a process of its own."""

import logging
import signal
import time
from typing import Final

import click
from celery.bin.base import LOG_LEVEL
from celery.utils.nodenames import default_nodename, host_format

from celery_daemons.cli.session import Command, daemons_of
from celery_daemons.errors import DaemonsError, StoreUnavailable
from celery_daemons.forkserver.logs import like_celery
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.boot import boot_for

logger = logging.getLogger(__name__)

#: Seconds between two looks at the agent, and the most that a signal waits to be heard.
_LOOK: Final = 0.25
#: Seconds that the agent gets after its drain time-out to end by itself.
_LAST_CALL: Final = 1.0


@click.command("monitor", cls=Command)
@click.option(
    "-n", "--hostname", metavar="NODENAME", help="Its name among the nodes; monitor@%h unless given, with %h the host."
)
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="INFO", show_default=True, help="Logging level.")
@click.option("-f", "--logfile", metavar="PATH", help="Log destination; standard error unless given.")
@click.pass_context
def monitor(ctx: click.Context, *, hostname: str | None, loglevel: int, logfile: str | None) -> None:
    """Run a candidate for the monitor: it may be elected, and runs no daemons. Ends on Ctrl-C or SIGTERM.

    Workers whose daemons_monitor is false leave the election to such candidates.
    """
    daemons = daemons_of(ctx, modules=True)
    settings = daemons.settings_with(monitor=True)
    node = host_format(default_nodename(hostname, "monitor")) if hostname else default_nodename(None, "monitor")
    boot = boot_for(daemons.app, settings, node=node, hosting=False, loglevel=loglevel, logfile=logfile)
    like_celery(daemons.app, level=loglevel, logfile=logfile)
    try:
        daemons.cluster.store.check()
    except StoreUnavailable as error:
        # It may come later than its candidates do; what is wrong with it for good ends the command here.
        logger.warning("monitor %s: %s", node, error)
    if not _run(AgentProcess(boot), drain_timeout=settings.drain_timeout):
        raise DaemonsError(f"monitor {node}: did not end within {settings.drain_timeout + _LAST_CALL:g} s, killed")


def _run(agent: AgentProcess, *, drain_timeout: float) -> bool:
    """Keep the agent alive until a signal; false if it then had to be killed."""
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: heard.append(number))
    logger.info("monitor %s: stands for election", agent.node)
    agent.start()
    while not heard:
        time.sleep(_LOOK)
        agent.keep_alive()
    logger.info("monitor %s: resigning", agent.node)
    # A second Ctrl-C is for those who cannot wait: the agent sees its parent gone, and ends by itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    agent.drain(drain_timeout)
    return agent.wait(drain_timeout + _LAST_CALL)
