"""The agent's link to its worker: assignments, the request to drain, and the worker's death."""

import asyncio
import os
import socket
import time
from collections.abc import Callable

from celery_daemons.node.vitals import Vitals
from celery_daemons.wire.channel import AsyncChannel, ChannelClosed
from celery_daemons.wire.messages import Consuming, Drain, FromWorker, Tick


class WorkerLink:
    """Passes the worker's messages on; ``gone`` is set once the worker is dead."""

    def __init__(self, sock: socket.socket, *, worker_pid: int, vitals: Vitals) -> None:
        self._sock = sock
        self._vitals = vitals
        self._worker_pid = worker_pid
        self.gone = asyncio.Event()
        self._channel: AsyncChannel[FromWorker] | None = None

    def send(self, message: object) -> None:
        """Send a message to the worker."""
        if self._channel is not None:
            self._channel.send(message)

    async def run(self, handle: Callable[[FromWorker], None]) -> None:
        """Pass each message to ``handle`` until the worker is gone."""
        self._watch_worker()
        self._channel = channel = await AsyncChannel[FromWorker].over(self._sock, FromWorker)
        try:
            while True:
                message = await channel.receive()
                if not self._is_sign_of_life(message):
                    handle(message)
        except ChannelClosed:
            self.gone.set()

    def _is_sign_of_life(self, message: FromWorker) -> bool:
        """Note what a message reports of the worker's loop; return whether that is all it reports."""
        now = time.monotonic()
        match message:
            case Tick():
                self._vitals.worker_ticked(now)
            case Consuming(on):
                self._vitals.worker_consumes(on, now)
            case Drain():
                self._vitals.worker_ends()
                return False
            case _:
                return False
        return True

    def _watch_worker(self) -> None:
        # End of file comes late where pool processes have inherited the worker's end of the socket. The kernel reports
        # the death of the worker itself at once.
        try:
            pidfd = os.pidfd_open(self._worker_pid)
        except AttributeError:
            return
        except ProcessLookupError:
            self.gone.set()
            return
        loop = asyncio.get_running_loop()

        def on_death() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self.gone.set()

        loop.add_reader(pidfd, on_death)
        if os.getppid() != self._worker_pid:
            # It died before this process asked, and its pid may be another process's by now.
            self.gone.set()
