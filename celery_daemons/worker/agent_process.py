"""The agent process as its parent handles it: start, messages, detection of death, restart, clean-up."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from celery_daemons.wire.channel import ChannelClosed, Frames, pack
from celery_daemons.wire.messages import Boot, Drain, JoinedAs, NodeQueues
from celery_daemons.worker.guard import Guard
from celery_daemons.worker.loop_reports import LoopReports
from celery_daemons.worker.session import kill_session
from celery_daemons.worker.socket_folder import new_socket_folder

logger = logging.getLogger(__name__)

#: Bytes queued for an agent that does not read. More is dropped: a heartbeat shows the agent that it is behind.
_BACKLOG: Final = 4 * 1024 * 1024
#: Seconds before an agent that died is replaced, doubled for each further death up to the maximum.
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 30.0
#: Doublings that are enough to reach the maximum, whatever the number of deaths.
_DOUBLINGS: Final = 9
#: Seconds after which an agent counts as started: a later death resets the pause.
_HEALTHY_AFTER: Final = 30.0
#: Seconds that the hosts of a dead agent have to exit. After that the next agent starts without the proof of their
#: death, and waits until the old lease has ended.
_HOSTS_EXIT_TIMEOUT: Final = 3.0
#: Seconds that an agent has, when the worker has to exit at once, to kill its hosts and release their daemons.
_HURRY: Final = 2.0


class AgentProcess:
    """Runs a single agent at a time, in a separate session, and replaces an agent that has died.

    Uses no threads, and no method but :meth:`wait` blocks: the worker's event loop calls the others. An agent that
    cannot be started is an expected outcome, logged once and tried again.
    """

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._lifeline: socket.socket | None = None
        self._frames: Frames[JoinedAs] = Frames(JoinedAs)
        self._out = bytearray()
        self._started_at = 0.0
        self._died_at = 0.0
        self._deaths = 0
        #: The incarnation that the present agent, or the last one, has joined as; None if it has not joined.
        self._incarnation: str | None = None
        self._ending = False
        self._loop_reports = LoopReports(self.send, ticks=not boot.no_ticks)
        self._start_guard = Guard(
            f"node {boot.node}: starting the agent",
            remedy=(
                f"the worker's tasks continue, but no daemon runs on this node until it succeeds; trying again, at "
                f"least every {_MAX_PAUSE:g} s: free what the error names, or restart the worker if {sys.executable} "
                "was replaced"
            ),
        )

    @property
    def node(self) -> str:
        """The name of the node."""
        return self._boot.node

    @property
    def pid(self) -> int | None:
        """The process id of the agent; None while no agent runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the agent in a new interpreter: a worker may be monkey-patched or have threads, so a fork is unsafe.

        If the system does not allow it, nothing is left behind, and :meth:`keep_alive` tries again.
        """
        self._start_guard.call(self._start)

    def _start(self) -> None:
        self._started_at = time.monotonic()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as passed:
            undo.callback(self._note_failed_start)
            self._boot.tempdir = new_socket_folder()
            undo.callback(shutil.rmtree, self._boot.tempdir, ignore_errors=True)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            passed.callback(theirs.close)
            lifeline, held = socket.socketpair()
            undo.callback(lifeline.close)
            passed.callback(held.close)
            ours.setblocking(False)
            lifeline.setblocking(False)
            # In memory, not through a pipe: a write to a full pipe would block the worker's event loop.
            boot = os.memfd_create("celery-daemons-boot")
            passed.callback(os.close, boot)
            _write_all(boot, msgspec.msgpack.encode(self._boot))
            os.lseek(boot, 0, os.SEEK_SET)
            fds = ["--fd", str(theirs.fileno()), "--lifeline", str(held.fileno())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery_daemons.node", *fds, self._boot.node],
                stdin=boot,
                pass_fds=[theirs.fileno(), held.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": _python_path()},
            )
            undo.pop_all()
        self._sock, self._lifeline = ours, lifeline
        self._frames = Frames(JoinedAs)
        self._incarnation = None
        self._out.clear()
        self._loop_reports.repeat()

    def _note_failed_start(self) -> None:
        self._died_at = time.monotonic()
        self._deaths += 1

    def send(self, message: Any) -> None:
        """Send a message to the agent; a message that exceeds the backlog is dropped."""
        frame = pack(message)
        if len(self._out) + len(frame) <= _BACKLOG:
            self._out += frame
        self._flush()

    def set_queues(self, *, queue: str, spawn_queue: str) -> None:
        """Report which queues of the node the worker consumes; an empty name stands for a queue that cannot exist."""
        if (queue, spawn_queue) != (self._boot.queue, self._boot.spawn_queue):
            # Also for the next agent, should this one die.
            self._boot.queue, self._boot.spawn_queue = queue, spawn_queue
            self.send(NodeQueues(queue, spawn_queue))

    def set_consuming(self, on: bool) -> None:
        """Report whether the worker consumes; see :class:`LoopReports`."""
        self._loop_reports.set_consuming(on)

    def drain(self, timeout: float) -> None:
        """Ask the agent to hand over all daemons within ``timeout`` seconds and exit. No other agent is started."""
        self._ending = True
        self.send(Drain(timeout))

    def keep_alive(self) -> None:
        """Replace an agent that has died, once the hosts of the dead agent have ended. Call this periodically."""
        if self._ending:
            return
        self._flush()
        self._receive()
        if self._process is not None:
            if self._has_died():
                self._note_death()
            else:
                self._loop_reports.tick()
        elif self._may_restart():
            self.start()

    def wait(self, timeout: float, *, hurried: Callable[[], bool]) -> bool:
        """Wait until the agent has exited. After ``timeout`` seconds kill the agent and return False.

        Once ``hurried`` returns True, ask the agent to kill its hosts, and wait only until it has released its daemons.
        An exception that a signal handler raises meanwhile, such as Celery's at a third Ctrl-C, kills the agent too.
        """
        try:
            return self._wait(timeout, hurried)
        except BaseException:
            if self._process is not None:
                self._kill_group()
                self._clean_up()
            raise

    def _wait(self, timeout: float, hurried: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + timeout
        hurrying = False
        while self._process is not None:
            if not hurrying and hurried():
                hurrying = True
                logger.warning("node %s: asked to stop at once, killing its daemons", self._boot.node)
                self.send(Drain(0.0))
                deadline = min(deadline, time.monotonic() + _HURRY)
            self._flush()
            if self._has_died():
                self._clean_up()
                return True
            if time.monotonic() >= deadline:
                self._kill_group()
                self._clean_up()
                return False
            time.sleep(0.02)
        return True

    def _flush(self) -> None:
        if self._sock is None:
            return
        # What is left is sent at the next check, and an agent whose socket is broken is about to be replaced.
        with contextlib.suppress(OSError):
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]

    def _receive(self) -> None:
        if self._sock is None:
            return
        with contextlib.suppress(OSError, ChannelClosed):
            while data := self._sock.recv(65536):
                for message in self._frames.feed(data):
                    self._incarnation = message.incarnation

    def _note_death(self) -> None:
        now = time.monotonic()
        self._deaths = 1 if now - self._started_at >= _HEALTHY_AFTER else self._deaths + 1
        self._died_at = now
        logger.error("node %s: agent died, starting another", self._boot.node)
        self._receive()
        self._clean_up()

    def _may_restart(self) -> bool:
        """Return whether the next agent may start: the pause is over, and the old hosts are dead or out of time.

        If the hosts are known to be dead, the next agent may take over the old lease at once.
        """
        now = time.monotonic()
        if now < self._died_at + min(_MAX_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._deaths - 1, _DOUBLINGS)):
            return False
        if self._lifeline is not None:
            dead = self._hosts_are_dead()
            if not dead and now < self._died_at + _HOSTS_EXIT_TIMEOUT:
                return False
            # An agent that has died before it joined says nothing about the incarnation before it: that one's death was
            # seen then, or was not.
            self._boot.previous = (self._incarnation or self._boot.previous) if dead else None
            self._lifeline.close()
            self._lifeline = None
        return True

    def _hosts_are_dead(self) -> bool:
        """Return whether no process of the agent is left: none holds the other end of the lifeline."""
        if self._lifeline is None:
            return True
        # An error proves nothing, and means that some may be left.
        with contextlib.suppress(OSError):
            return not self._lifeline.recv(1)
        return False

    def _has_died(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            return True
        try:
            # Checked but not reaped: while the zombie exists, the kernel cannot give its id to another process group.
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except OSError:
            # A monkey-patched parent reaps its children itself.
            if self._process.poll() is None:
                return False
            # While a host is left in the group, the kernel gives the agent's id to no other process. If a process has
            # that id, no host is left, and the group may be another one.
            if self._hosts_are_dead() or Path(f"/proc/{self._process.pid}").exists():
                return True
        self._kill_group()
        self._process.poll()
        return True

    def _kill_group(self) -> None:
        assert self._process is not None
        # Hosts of a dead agent exit by themselves, but a blocked host may take as long as the lease.
        with contextlib.suppress(OSError):
            kill_session(self._process.pid)

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        sock, self._sock = self._sock, None
        with contextlib.suppress(OSError):
            # An agent that was killed has not removed its folder.
            shutil.rmtree(self._boot.tempdir, ignore_errors=True)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if sock is not None:
                sock.close()
            if process is not None:
                process.wait(1)


def _python_path() -> str:
    """Return a ``PYTHONPATH`` on which a new interpreter finds this package even if the package is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (root, given) if part)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
