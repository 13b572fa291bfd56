"""The agent as seen from its parent: starting it, talking to it, seeing it dead, and making sure of what it leaves."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from celery_daemons.wire.channel import ChannelClosed, Frames, pack
from celery_daemons.wire.messages import Boot, Drain, Joined

logger = logging.getLogger(__name__)

#: The most bytes that wait for an agent that does not read; more is dropped, its heartbeat tells it the rest.
_BACKLOG: Final = 4 * 1024 * 1024
#: Seconds before an agent that died is started again, doubled for each death in a row.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
#: An agent that lived so long did not die of its start.
_HEALTHY: Final = 30.0
#: Seconds that the hosts of a dead agent get to die in, before the next agent waits for their lease instead.
_BURIAL: Final = 3.0


#: The longest path of a folder in which sockets can be made: theirs have 108 bytes at most, and some more parts.
_SHORT_PATH: Final = 40


class AgentProcess:
    """One agent after the other, in a session of its own; no threads, and no call here waits but :meth:`wait`."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._lifeline: socket.socket | None = None
        self._frames: Frames[Joined] = Frames(Joined)
        self._out = bytearray()
        self._started = 0.0
        self._died = 0.0
        self._deaths = 0
        self._incarnation: str | None = None
        self._ending = False

    @property
    def node(self) -> str:
        """The node's name."""
        return self._boot.node

    @property
    def pid(self) -> int | None:
        """The agent's process id, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the agent: a fresh interpreter, since this one may be patched, or hold threads."""
        self._boot.tempdir = _short_folder()
        ours, theirs = socket.socketpair()
        lifeline, held = socket.socketpair()
        ours.setblocking(False)
        lifeline.setblocking(False)
        fds = ["--fd", str(theirs.fileno()), "--lifeline", str(held.fileno())]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery_daemons.node", *fds, self._boot.node],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno(), held.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _python_path()},
            )
        finally:
            theirs.close()
            held.close()
        self._sock, self._lifeline = ours, lifeline
        self._frames = Frames(Joined)
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
        self._flush()

    def drain(self, timeout: float) -> None:
        """Let the agent hand everything over and end, and start no other after it."""
        self._ending = True
        self.send(Drain(timeout))

    def keep_alive(self) -> None:
        """Start a new agent for one that died, once what the old one left is dead too; call it now and then."""
        if self._ending:
            return
        self._flush()
        self._hear()
        if self._process is not None:
            if self._has_died():
                self._note_death()
        elif self._buried():
            self.start()

    def wait(self, timeout: float) -> bool:
        """Wait until the agent has ended; kill what is left of it after ``timeout`` seconds, and answer false then."""
        deadline = time.monotonic() + timeout
        while self._process is not None:
            self._flush()
            if self._has_died():
                self._let_go()
                return True
            if time.monotonic() >= deadline:
                self._kill_group()
                self._let_go()
                return False
            time.sleep(0.02)
        return True

    def _flush(self) -> None:
        if self._sock is None:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]

    def _hear(self) -> None:
        if self._sock is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionResetError, ChannelClosed):
            while data := self._sock.recv(65536):
                for message in self._frames.feed(data):
                    self._incarnation = message.incarnation

    def _note_death(self) -> None:
        now = time.monotonic()
        self._deaths = 1 if now - self._started >= _HEALTHY else self._deaths + 1
        self._died = now
        logger.error("node %s: its agent died, starting another", self._boot.node)
        self._hear()
        self._let_go()

    def _buried(self) -> bool:
        """Whether the next agent may start: it takes the daemons over at once if their hosts are seen dead."""
        now = time.monotonic()
        if now < self._died + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self._deaths - 1)):
            return False
        if self._lifeline is not None:
            dead = False
            with contextlib.suppress(BlockingIOError):
                dead = not self._lifeline.recv(1)
            if not dead and now < self._died + _BURIAL:
                return False
            self._boot.previous = self._incarnation if dead else None
            self._lifeline.close()
            self._lifeline = None
        return True

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
        # Hosts of a dead agent end by themselves, unless they are held up: the next agent must not wait for that.
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
        # An agent that was killed has left it.
        shutil.rmtree(self._boot.tempdir, ignore_errors=True)


def _short_folder() -> str:
    """A new folder for the sockets of the agent's processes, whose paths have to be short whatever ``TMPDIR`` says."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="celery-daemons-", dir=usual if len(usual) <= _SHORT_PATH else "/tmp")  # noqa: S108


def _python_path() -> str:
    """Where the new interpreter finds this package, also when it is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (root, given) if part)
