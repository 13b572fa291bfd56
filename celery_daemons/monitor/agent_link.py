"""The monitor's link to its agent: proof that the loop turns, one way; the lease, the other."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from celery_daemons.forkserver.child import AGENT_GONE
from celery_daemons.forkserver.deadman import Deadman
from celery_daemons.wire.channel import Channel, ChannelClosed
from celery_daemons.wire.messages import HandOver, LoadFailed, Progress, SteppedDown, ToMonitor

logger = logging.getLogger(__name__)


class AgentLink:
    """Keeps the lease in a thread of its own, so that a long plan does not cost it; proof comes from the loop alone."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        # A monitor that was paused past its lease is ended by the kernel when it is continued.
        self._deadman = Deadman()
        self._deadman.arm(until)
        self._channel: Channel[ToMonitor] = Channel(sock, ToMonitor)
        self._proven = 0.0

    def start(self, hand_over: Callable[[], None]) -> None:
        """Start to listen; ``hand_over`` is called when the agent has given the lease back."""
        self._hand_over = hand_over
        threading.Thread(target=self._listen, name="celery-daemons-agent", daemon=True).start()

    def turn(self, *, at_most_every: float) -> None:
        """Prove that the loop turns."""
        now = time.monotonic()
        if now - self._proven >= at_most_every:
            self._proven = now
            self._say(Progress())

    def unready(self, error: str) -> None:
        """Say why there will be no monitor."""
        self._say(LoadFailed(error))

    def yielded(self) -> None:
        """Say that another node shall lead."""
        self._say(SteppedDown())

    def _say(self, message: object) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            os._exit(AGENT_GONE)

    def _listen(self) -> None:
        try:
            while True:
                for message in self._channel.receive():
                    if isinstance(message, HandOver):
                        self._hand_over()
                        os._exit(0)
                    self._deadman.arm(message.until)
        except ChannelClosed:
            os._exit(AGENT_GONE)
