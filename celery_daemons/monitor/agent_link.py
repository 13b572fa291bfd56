"""The monitor's end of the socket to its agent: progress goes out, the lease comes in."""

import os
import socket
from collections.abc import Callable

from celery_daemons.forkserver.child import leave_without_agent
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.forkserver.unpatched import start_new_thread
from celery_daemons.wire.channel import Channel, ChannelClosed
from celery_daemons.wire.messages import ClusterNumbers, HandOver, LoadFailed, Progress, SteppedDown, ToMonitor


class AgentLink:
    """Receive lease renewals and report progress.

    Renewals come in a thread, so that a long plan does not lose the lease. Progress is reported by the loop alone.
    """

    def __init__(
        self, sock: socket.socket, *, lease_until: float, progress_interval: float, clock: Callable[[], float]
    ) -> None:
        """``lease_until`` is on the lease clock; ``progress_interval`` are the least seconds between two reports."""
        # The kernel ends a monitor that was paused past its lease as soon as the process continues.
        self._deadman = Deadman()
        self._deadman.arm(lease_until)
        self._channel: Channel[ToMonitor] = Channel(sock, ToMonitor)
        self._progress_interval = progress_interval
        self._clock = clock
        self._reported_at = 0.0

    def start(self, *, on_hand_over: Callable[[], None]) -> None:
        """Start to receive; ``on_hand_over`` is called in that thread when the agent has given the lease back."""
        # A real thread even where gevent has patched the process: it renews the lease while a scanner computes.
        start_new_thread(self._receive, (on_hand_over,))

    def report_progress(self) -> None:
        """Report that the loop makes progress. Call only from the loop: the agent replaces a monitor that stalls."""
        now = self._clock()
        if now - self._reported_at >= self._progress_interval:
            self._reported_at = now
            self._send(Progress())

    def report_numbers(self, numbers: ClusterNumbers) -> None:
        """Report the cluster in numbers."""
        self._send(numbers)

    def report_load_failed(self, error: str) -> None:
        """Report why no monitor can run."""
        self._send(LoadFailed(error))

    def report_stepped_down(self) -> None:
        """Report that the lease was given back for another node to lead."""
        self._send(SteppedDown())

    def _send(self, message: object) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            leave_without_agent()

    def _receive(self, on_hand_over: Callable[[], None]) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    if isinstance(message, HandOver):
                        on_hand_over()
                        os._exit(0)
                    self._deadman.arm(message.until)
        except ChannelClosed:
            leave_without_agent()
