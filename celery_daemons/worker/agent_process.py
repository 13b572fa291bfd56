"""The agent as seen from its parent: starting it, talking to it, seeing it dead, and making sure of what it leaves."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Final

import msgspec

from celery_daemons.process.channel import pack
from celery_daemons.process.messages import Boot

logger = logging.getLogger(__name__)

#: The most bytes that wait for an agent that does not read; more is dropped, its heartbeat tells it the rest.
_BACKLOG: Final = 4 * 1024 * 1024
#: Seconds before an agent that died is started again, doubled for each death in a row.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
#: An agent that lived so long did not die of its start.
_HEALTHY: Final = 30.0


class AgentProcess:
    """One agent after the other, in a session of its own; no threads, and no call here waits but :meth:`wait`."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._out = bytearray()
        self._started = 0.0
        self._deaths = 0
        self._start_at = 0.0

    @property
    def node(self) -> str:
        """The node's name."""
        return self._boot.node

    @property
    def pid(self) -> int | None:
        """The agent's process id, if it has been started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the agent: a fresh interpreter, since this one may be patched, or hold threads."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        command = [sys.executable, "-m", "celery_daemons.node", "--fd", str(theirs.fileno()), self._boot.node]
        environment = {**os.environ, "PYTHONPATH": _python_path()}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
            )
        finally:
            theirs.close()
        self._sock = ours
        self._out.clear()
        self._started = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.msgpack.encode(self._boot))
            self._process.stdin.close()

    def send(self, message: Any) -> None:
        """Tell the agent; what does not fit is dropped."""
        frame = pack(message)
        if len(self._out) + len(frame) <= _BACKLOG:
            self._out += frame
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._sock is None:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]

    def keep_alive(self) -> None:
        """Start a new agent for one that died, once what the old one left is dead too; call it now and then."""
        self.flush()
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return
        if not self._has_died():
            return
        lived = time.monotonic() - self._started
        self._deaths = 1 if lived >= _HEALTHY else self._deaths + 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self._deaths - 1))
        logger.error("node %s: its agent died, starting another in %.1f s", self._boot.node, pause)
        self._start_at = time.monotonic() + pause
        self._let_go()

    def wait(self, timeout: float) -> bool:
        """Wait until the agent has ended; kill what is left of it after ``timeout`` seconds, and answer false then."""
        if self._process is None:
            return True
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.flush()
            if self._has_died():
                self._let_go()
                return True
            time.sleep(0.02)
        self._kill_group()
        self._let_go()
        return False

    def _has_died(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            return True
        try:
            # Seen but not reaped: while the zombie stays, its id cannot become another group's.
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except ChildProcessError:
            # A patched parent reaps its children itself.
            return self._process.poll() is not None
        self._kill_group()
        self._process.poll()
        return True

    def _kill_group(self) -> None:
        assert self._process is not None
        # Hosts of a dead agent end by themselves, unless they are held up: the next agent must not wait for their lease.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _let_go(self) -> None:
        if self._sock is not None:
            self._sock.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._process = None
        self._sock = None


def _python_path() -> str:
    """Where the new interpreter finds this package, also when it is not installed."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (root, given) if part)
