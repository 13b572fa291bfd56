"""The monitor's process: what it is made of, and how it ends."""

import logging
import socket
from typing import Final

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.errors import ConfigurationError, DaemonsError, LeaseLost
from celery_daemons.forkserver.child import loaded_app
from celery_daemons.launcher import registry_of
from celery_daemons.monitor.agent_link import AgentLink
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.monitor.loop import Monitor
from celery_daemons.settings import Settings
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.wire.messages import MonitorBoot

logger = logging.getLogger(__name__)

#: Seconds for one command of the monitor; more than it waits for the journal.
_TIMEOUT: Final = 4.0


def main(boot: MonitorBoot, sock: socket.socket) -> int:
    """Lead until the lease is lost or the agent is gone."""
    link = AgentLink(sock, boot.until)
    settings = Settings(**boot.settings)
    try:
        app = loaded_app()
        registry = registry_of(app)
    except ConfigurationError as error:
        link.unready(str(error))
        return 1
    store = Store(settings.redis_url, Keys(settings.namespace), timeout=_TIMEOUT, pin_server=True)
    # The monitor's own stays with the server that it has settled with; what scanners list may go to any.
    scanning = Store(settings.redis_url, Keys(settings.namespace), timeout=_TIMEOUT)
    dispatcher = Dispatcher(app)
    dispatcher.start()
    monitor = Monitor(store, settings, registry, dispatcher, link, Epoch(boot.epoch), scanning, NodeName(boot.node))
    link.start(monitor.hand_over)
    try:
        monitor.run()
        link.yielded()
        monitor.hand_over()
    except LeaseLost as error:
        logger.warning("monitor %s: %s", boot.node, error)
        return 0
    except DaemonsError as error:
        logger.error("monitor %s: %s", boot.node, error)
    except Exception:
        logger.exception("monitor %s: its loop failed", boot.node)
    else:
        return 0
    return 1
