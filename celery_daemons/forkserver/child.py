"""The first lines of every process forked for a node: its title, its channel, its role."""

import importlib
import logging
import os
import socket
from typing import Any, Final

from celery_daemons.errors import ConfigurationError
from celery_daemons.wire.channel import ChannelClosed, read_one
from celery_daemons.wire.messages import ChildBoot

logger = logging.getLogger(__name__)

#: The exit status of a process whose agent is gone.
AGENT_GONE: Final = 70
#: The user's app, or why there is none; set by the fork server before it forks.
app: Any = None
failure: str | None = None


def run(role: str, sock: socket.socket, lifeline: socket.socket) -> None:
    """Become ``role`` (``module:function``) as the first message on ``sock`` says; never returns.

    ``lifeline`` is only held: its other end reads end of file once no process of the node has it any more.
    """
    import setproctitle

    module, _, function = role.partition(":")
    status = 1
    try:
        boot: ChildBoot = read_one(sock, ChildBoot)
        setproctitle.setproctitle(boot.title)
        status = getattr(importlib.import_module(module), function)(boot, sock) or 0
    except ChannelClosed:
        # The agent died before it had said what for.
        status = AGENT_GONE
    except Exception:
        logger.exception("%s: failed", role)
    finally:
        # Not sys.exit: threads of daemons and of libraries must not keep a finished process alive.
        os._exit(status)


def loaded_app() -> Any:
    """The user's app; raises :exc:`ConfigurationError` that says why it could not be loaded."""
    if app is None:
        raise ConfigurationError(failure or "the fork server has not loaded the app")
    return app
