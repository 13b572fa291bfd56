"""The host's process: armed before user code runs, then a shared or an isolated host."""

import signal
import socket

from celery_daemons.errors import ConfigurationError
from celery_daemons.forkserver.child import loaded_app
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.host.base import Host
from celery_daemons.launcher import registry_of
from celery_daemons.store.codec import printable
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.messages import HostBoot, LoadFailed, ToHost


def main(boot: HostBoot, sock: socket.socket) -> int:
    """Run a host until the agent is gone, the lease ends or, for an isolated host, its daemon has ended."""
    # Armed before any user code runs: from here on this process cannot outlive its lease.
    deadman: Deadman | None = None
    if boot.settings["on_store_loss"] == "stop":
        deadman = Deadman()
        deadman.arm(boot.until)
    # The agent ends this process; a terminal or a service manager that signals the whole group does not.
    signal.signal(signal.SIGINT, _ignore)
    signal.signal(signal.SIGTERM, _ignore)
    from celery_daemons.host.isolated import IsolatedHost
    from celery_daemons.host.shared import SharedHost

    channel: Channel[ToHost] = Channel(sock, ToHost)
    try:
        registry = registry_of(loaded_app())
    except ConfigurationError as error:
        channel.send(LoadFailed(printable(str(error))))
        return 1
    host: Host = (IsolatedHost if boot.isolated else SharedHost)(channel, registry, boot.node, deadman)
    return host.run()


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing. Unlike ``SIG_IGN``, programs that a daemon starts do not inherit this."""
