"""The protocol of systemd's ``Type=notify``: one datagram per message, nothing without ``NOTIFY_SOCKET``."""

import contextlib
import logging
import socket
from collections.abc import MutableMapping
from typing import Final

logger = logging.getLogger(__name__)

_MICROSECONDS: Final = 1_000_000
#: Messages in the time after which systemd acts: one may be late.
_ALIVES_PER_TIMEOUT: Final = 3
#: Seconds by which a start that waits is extended; several times the interval between two calls.
_START_EXTENSION: Final = 30
#: Seconds of the watchdog while the worker shuts down: the agent is gone before the last task has ended, and
#: ``TimeoutStopSec`` limits the shutdown.
_WATCHDOG_WHILE_STOPPING: Final = 86_400


class ServiceManager:
    """Sends the state of the worker's unit to systemd; no method raises or blocks."""

    def __init__(self, address: str | None, *, watchdog: float | None) -> None:
        """``watchdog`` is after how many seconds without a message systemd acts, ``None`` without a watchdog."""
        self._address = address
        self._watchdog = watchdog
        self._next_alive_at = 0.0
        self._status = ""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], *, worker_pid: int) -> "ServiceManager":
        """Take systemd's variables out of the environment: a daemon's programs must not send messages for the unit."""
        address = environment.pop("NOTIFY_SOCKET", None)
        usec = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "") or str(worker_pid)
        watchdog = int(usec) / _MICROSECONDS if usec.isdigit() and int(usec) else None
        if address is not None and watchdog is not None and pid != str(worker_pid):
            logger.warning(
                "systemd expects the watchdog's messages from process %s, and the worker is process %d: none are "
                "sent; start the worker by exec, or remove WatchdogSec from the unit",
                pid,
                worker_pid,
            )
            watchdog = None
        return cls(address, watchdog=watchdog)

    @property
    def present(self) -> bool:
        """Whether systemd waits for messages."""
        return self._address is not None

    def waiting(self, why: str) -> None:
        """Report why the node has not joined yet, and ask for more time: the worker runs its tasks meanwhile."""
        self._send(f"STATUS={why}", f"EXTEND_TIMEOUT_USEC={_START_EXTENSION * _MICROSECONDS}")

    def ready(self) -> None:
        """Report that the node has joined."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the worker shuts down."""
        lines = ["STOPPING=1"]
        if self._watchdog is not None:
            lines.append(f"WATCHDOG_USEC={_WATCHDOG_WHILE_STOPPING * _MICROSECONDS}")
        self._send(*lines)

    def status(self, text: str) -> None:
        """Report a line for ``systemctl status``, if it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self, now: float) -> None:
        """Send the watchdog's message if it is due; ``now`` is in monotonic seconds."""
        if self._watchdog is not None and now >= self._next_alive_at:
            self._next_alive_at = now + self._watchdog / _ALIVES_PER_TIMEOUT
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        # A name that begins with @ is in Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), address)
