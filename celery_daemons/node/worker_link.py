"""The agent's link to its worker: spawn tasks, the order to drain, and the worker's death."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from celery_daemons.wire.channel import AsyncChannel, ChannelClosed
from celery_daemons.wire.messages import FromWorker

logger = logging.getLogger(__name__)


class Control:
    """Passes on what the worker says; ``gone`` is set once the worker is dead."""

    def __init__(self, sock: socket.socket, worker_pid: int, hear: Callable[[FromWorker], None]) -> None:
        self._sock = sock
        self._worker_pid = worker_pid
        self._hear = hear
        self.gone = asyncio.Event()
        self._channel: AsyncChannel[FromWorker] | None = None

    def tell(self, message: object) -> None:
        """Tell the worker."""
        if self._channel is not None:
            self._channel.send(message)

    async def run(self) -> None:
        """Serve until the worker is gone."""
        self._watch_worker()
        self._channel = channel = await AsyncChannel[FromWorker].over(self._sock, FromWorker)
        try:
            while True:
                self._hear(await channel.receive())
        except ChannelClosed:
            self.gone.set()

    def _watch_worker(self) -> None:
        # End of file comes late where pool processes have inherited the worker's end of the socket; the kernel's
        # word on the worker itself does not.
        try:
            pidfd = os.pidfd_open(self._worker_pid)
        except AttributeError:
            return
        except ProcessLookupError:
            self.gone.set()
            return
        loop = asyncio.get_running_loop()

        def dead() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self.gone.set()

        loop.add_reader(pidfd, dead)
        if os.getppid() != self._worker_pid:
            # It died before this process looked, and the pid is somebody else's by now.
            self.gone.set()
