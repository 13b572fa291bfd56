"""The first lines of every process forked for a node: its title, its channel, its role."""

import importlib
import os
import socket
from typing import Any

import msgspec

from celery_daemons.errors import ConfigurationError
from celery_daemons.process.messages import ChildBoot

#: The user's app, or why there is none; set by the fork server before it forks.
app: Any = None
failure: str | None = None


def run(role: str, boot: bytes, sock: socket.socket, lifeline: socket.socket) -> None:
    """Become ``role`` (``module:function``); never returns.

    ``lifeline`` is only held: its other end reads end of file once no process of the node has it any more.
    """
    import setproctitle

    settled = msgspec.msgpack.decode(boot, type=ChildBoot)
    setproctitle.setproctitle(settled.title)
    module, _, function = role.partition(":")
    status = 1
    try:
        status = getattr(importlib.import_module(module), function)(settled, sock) or 0
    finally:
        # Not sys.exit: threads of daemons and of libraries must not keep a finished process alive.
        os._exit(status)


def loaded_app() -> Any:
    """The user's app; raises :exc:`ConfigurationError` that says why it could not be loaded."""
    if app is None:
        raise ConfigurationError(failure or "the fork server has not loaded the app")
    return app
