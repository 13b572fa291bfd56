"""Entry point of a host process: arms the lease timer, loads the app's launchers, runs a shared or an isolated host."""

import logging
import socket

from celery_daemons.errors import ConfigurationError
from celery_daemons.forkserver.child import loaded_app
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.forkserver.inheritance import ignore_signals_of_the_group
from celery_daemons.forkserver.process_end import end_process, send_process_init
from celery_daemons.host.isolated import IsolatedHost
from celery_daemons.host.log_capture import LogCapture
from celery_daemons.host.shared import SharedHost
from celery_daemons.launcher import registry_of
from celery_daemons.store.codec import printable
from celery_daemons.wire.channel import Channel
from celery_daemons.wire.log_ring import LogRing
from celery_daemons.wire.messages import HostBoot, LoadFailed, ToHost

logger = logging.getLogger(__name__)


def main(boot: HostBoot, sock: socket.socket) -> int:
    """Run a host until the agent dies or asks to leave, the lease ends or, in an isolated host, the daemon ends."""
    # Armed before any code of a daemon runs: from here on the process cannot outlive the node's lease.
    deadman: Deadman | None = None
    if boot.settings.on_store_loss == "stop":
        deadman = Deadman()
        deadman.arm(boot.until)
    ignore_signals_of_the_group()
    channel: Channel[ToHost] = Channel(sock, ToHost)
    try:
        registry = registry_of(loaded_app())
    except ConfigurationError as error:
        channel.send(LoadFailed(printable(str(error))))
        return 1
    capture = LogCapture(_log_ring(boot))
    capture.install()
    host_class = IsolatedHost if boot.isolated else SharedHost
    host = host_class(channel=channel, registry=registry, node=boot.node, deadman=deadman, capture=capture)
    # Before any code of the user, which may take longer than a lease.
    host.start_receiving()
    send_process_init()
    return end_process(host.run())


def _log_ring(boot: HostBoot) -> LogRing | None:
    """Return the file for the last log lines; ``None`` where it cannot be created, as on a full disk."""
    if not boot.log_ring:
        return None
    try:
        return LogRing(boot.log_ring)
    except OSError as error:
        logger.warning("host of %s: keeps no log lines for `daemons logs` (%s)", boot.node, error)
        return None
