"""Common start of every process forked for a node: process title, channel to the agent, role."""

import importlib
import logging
import os
import socket
from typing import Any, Final

from celery_daemons.errors import ConfigurationError
from celery_daemons.wire.channel import ChannelClosed, read_one
from celery_daemons.wire.messages import ChildBoot

logger = logging.getLogger(__name__)

#: Exit status of a process that ends because its agent has died.
AGENT_GONE: Final = 70
#: The user's app, or the reason why loading failed. The fork server sets one of them before the first fork.
app: Any = None
failure: str | None = None


def run(role: str, sock: socket.socket, lifeline: socket.socket) -> None:
    """Read the boot message from ``sock``, run ``role`` (``module:function``) with both, and exit the process.

    ``lifeline`` is only held open: its other end reads end of file once no process of the node is left.
    """
    import setproctitle

    module, _, function = role.partition(":")
    status = 1
    try:
        boot: ChildBoot = read_one(sock, ChildBoot)
        setproctitle.setproctitle(boot.title)
        status = getattr(importlib.import_module(module), function)(boot, sock) or 0
    except ChannelClosed:
        # The agent died before it sent the boot message.
        status = AGENT_GONE
    except Exception:
        logger.exception("%s: failed", role)
    finally:
        # Not sys.exit, which would wait for threads that daemons or libraries have started.
        os._exit(status)


def loaded_app() -> Any:
    """Return the user's app. Raises :exc:`ConfigurationError` with the reason if loading failed."""
    if app is None:
        raise ConfigurationError(failure or "the fork server has not loaded the app")
    return app
