"""Common start of every process forked for a node: what it inherits, process title, channel to the agent, role."""

import importlib
import logging
import os
from typing import Any, Final, NoReturn

from celery_daemons.errors import ConfigurationError
from celery_daemons.forkserver import inheritance, unpatched
from celery_daemons.wire.channel import ChannelClosed, read_one
from celery_daemons.wire.messages import ChildBoot

logger = logging.getLogger(__name__)

#: Exit status of a process that ends because its agent has died.
AGENT_GONE: Final = 70
#: What a child writes first: it has passed every hook that runs after a fork.
BOOTED: Final = b"\0"
#: The user's app, or the reason why loading failed. The fork server sets one of them before the first fork.
app: Any = None
failure: str | None = None
#: The start method that the app has chosen for multiprocessing; None for the platform's default.
start_method: str | None = None


def run(role: str, sock: unpatched.socket, lifeline: unpatched.socket) -> None:
    """Read the boot message from ``sock``, run ``role`` (``module:function``) with both, and exit the process.

    ``lifeline`` is only held open: its other end reads end of file once no process of the node is left. Forks of this
    process hold it too.
    """
    import setproctitle

    inheritance.become_leader_of_own_group()
    inheritance.leave_fork_server(start_method)
    module, _, function = role.partition(":")
    status = 1
    try:
        # The class of the given socket may be gevent's; a thread of this process has to block on this one.
        to_agent = unpatched.socket(fileno=sock.detach())
        to_agent.setblocking(True)
        inheritance.free_children_of(to_agent)
        to_agent.sendall(BOOTED)
        boot: ChildBoot = read_one(to_agent, ChildBoot)
        setproctitle.setproctitle(boot.title)
        status = getattr(importlib.import_module(module), function)(boot, to_agent) or 0
    except (ChannelClosed, BrokenPipeError):
        # The agent died before it sent the boot message.
        status = AGENT_GONE
    except Exception:
        logger.exception("%s: failed", role)
    finally:
        # Not sys.exit, which would wait without a limit for threads that daemons or libraries have started.
        os._exit(status)


def leave_without_agent() -> NoReturn:
    """End this process and the rest of the process group: the agent has died, so that no lease is renewed."""
    inheritance.kill_own_group()
    os._exit(AGENT_GONE)


def loaded_app() -> Any:
    """Return the user's app. Raises :exc:`ConfigurationError` with the reason if loading failed."""
    if app is None:
        raise ConfigurationError(failure or "the fork server has not loaded the app")
    return app
