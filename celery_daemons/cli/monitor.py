"""``monitor``: run a candidate for the monitor without a worker, as ``celery beat`` runs without one."""

import logging
import signal
import time
from typing import Final

import click
from celery.bin.base import LOG_LEVEL
from celery.utils.nodenames import default_nodename, host_format

from celery_daemons.cli.common import Command, daemons_of
from celery_daemons.errors import DaemonsError, StoreUnavailable
from celery_daemons.forkserver.logs import like_celery
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.boot import boot_for

logger = logging.getLogger(__name__)

#: Seconds between two checks of the agent, and the longest delay until a signal is handled.
_CHECK_INTERVAL: Final = 0.25
#: Seconds after the drain time-out within which the agent must exit by itself before it is killed.
_AGENT_EXIT_MARGIN: Final = 1.0


@click.command("monitor", cls=Command)
@click.option(
    "-n", "--hostname", metavar="NODENAME", help="Node name (default: monitor@%h, where %h is the host name)."
)
@click.option("-l", "--loglevel", type=LOG_LEVEL, default="INFO", show_default=True, help="Logging level.")
@click.option("-f", "--logfile", metavar="PATH", help="Log file (default: standard error).")
@click.pass_context
def monitor(ctx: click.Context, *, hostname: str | None, loglevel: int, logfile: str | None) -> None:
    """Run a candidate for the monitor without a worker, until Ctrl-C or SIGTERM.

    The candidate takes part in elections and runs no daemons. Workers with daemons_monitor set to false leave the
    election to such candidates.
    """
    daemons = daemons_of(ctx, modules=True)
    settings = daemons.settings_with(monitor=True)
    node = host_format(default_nodename(hostname, "monitor")) if hostname else default_nodename(None, "monitor")
    boot = boot_for(daemons.app, settings, node=node, hosting=False, loglevel=loglevel, logfile=logfile)
    like_celery(daemons.app, level=loglevel, logfile=logfile)
    try:
        daemons.cluster.store.check()
    except StoreUnavailable as error:
        # Redis may be started after its candidates. Errors that waiting does not cure are raised here.
        logger.warning("monitor %s: %s", node, error)
    if not _run(AgentProcess(boot), drain_timeout=settings.drain_timeout):
        timeout = settings.drain_timeout + _AGENT_EXIT_MARGIN
        raise DaemonsError(f"monitor {node}: did not exit within {timeout:g} s and was killed")


def _run(agent: AgentProcess, *, drain_timeout: float) -> bool:
    """Keep the agent alive until a signal, then drain the agent. Returns False if the agent was killed."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    logger.info("monitor %s: candidate started", agent.node)
    agent.start()
    # This loop waits for nothing but signals.
    agent.set_consuming(True)
    while not received:
        time.sleep(_CHECK_INTERVAL)
        agent.keep_alive()
    logger.info("monitor %s: resigning", agent.node)
    agent.drain(drain_timeout)
    # A second Ctrl-C ends the agent at once.
    return agent.wait(drain_timeout + _AGENT_EXIT_MARGIN, hurried=lambda: len(received) > 1)
