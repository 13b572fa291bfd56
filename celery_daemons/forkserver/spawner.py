"""Starts hosts and the monitor by forking a server that has the user's app loaded, and observes their death."""

import asyncio
import contextlib
import json
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

import msgspec

from celery_daemons.forkserver import child
from celery_daemons.wire.channel import pack
from celery_daemons.wire.messages import PRELOAD_VARIABLE, Boot, ChildBoot, Preload

#: Named, not imported: the module imports the user's app, which the agent must never do.
_PRELOAD_MODULE: Final = "celery_daemons.forkserver.preload"


#: The least seconds in which a fork has to reach its role: on a busy machine a short lease would not be enough.
_LEAST_BOOT_TIMEOUT: Final = 5.0
_STATUS_UNKNOWN: Final = 255
#: What a signal most often means.
_HINTS: Final = {
    "SIGKILL": " (by the out-of-memory killer of the system, or by hand)",
    "SIGALRM": (
        " (the timer of its lease: it did not receive the renewals of its agent in time, because it was stopped or "
        "because a call into C held the GIL for longer than the lease)"
    ),
}
#: Seconds that the fork server needs to report the exit status of a dead child.
_REAP_TIMEOUT: Final = 0.2


class StuckFork(OSError):
    """A forked process hung before the function of the role was called."""


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended, in words, and whether the timer of its lease killed it."""

    cause: str
    by_lease_timer: bool = False


class Child:
    """A forked process, which counts as dead only when the kernel reports the death."""

    def __init__(self, process: Any, sock: socket.socket) -> None:
        self.pid: int = process.pid
        self.sock = sock
        self._process = process
        # While this descriptor is open the kernel does not reuse the pid. It becomes readable when the process dies.
        self._pidfd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else os.dup(process.sentinel)

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, in the running loop, when the process is dead."""
        loop = asyncio.get_running_loop()

        def dead() -> None:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            self._kill_group()
            callback()

        loop.add_reader(self._pidfd, dead)

    def signal(self, number: int) -> None:
        """Send a signal unless the process is dead."""
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    async def reap(self) -> "ProcessEnd":
        """Release what multiprocessing keeps for the process, and return how the process ended.

        Call only after the process has died.
        """
        # Not join() in a thread: where the system refuses threads, the death would never be reported.
        await _wait_readable(self._process.sentinel, _REAP_TIMEOUT)
        exitcode = self._process.exitcode
        with contextlib.suppress(ValueError):
            self._process.close()
        return ProcessEnd(how_it_ended(exitcode), by_lease_timer=exitcode == -signal.SIGALRM)

    def _kill_group(self) -> None:
        # What the process has started and left behind. A group that still has members keeps its number from reuse.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _wait_readable(fd: int, seconds: float) -> None:
    """Wait until a descriptor is readable, or for so many seconds."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await readable.wait()
    finally:
        loop.remove_reader(fd)


def how_it_ended(exitcode: int | None) -> str:
    """Return in words how a process ended; ``exitcode`` is negative for a signal, as in multiprocessing."""
    # 255 is also what multiprocessing returns when the fork server died first.
    if exitcode is None or exitcode == _STATUS_UNKNOWN:
        return "died with an unknown exit status"
    if exitcode >= 0:
        return f"exited with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"was killed by {name}{_HINTS.get(name, '')}"


class Spawner:
    """Forks the hosts and the monitor of a node. The first fork waits until the user's app is loaded."""

    def __init__(self, boot: Boot, lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        preload = Preload(
            node=boot.node,
            app=boot.app,
            sys_path=boot.sys_path,
            loglevel=boot.loglevel,
            logfile=boot.logfile,
            python_path=boot.python_path,
        )
        self._boot_timeout = max(boot.settings.lease_ttl, _LEAST_BOOT_TIMEOUT)
        # json.dumps writes ASCII only: the environment cannot hold every path in every locale.
        os.environ[PRELOAD_VARIABLE] = json.dumps(msgspec.to_builtins(preload))
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOAD_MODULE])
        # One thread: the fork server handles requests one after the other in any case.
        self._forking = ThreadPoolExecutor(1, thread_name_prefix="celery-daemons-fork")
        # The thread is started now: once the system refuses threads, nothing else could be forked.
        self._forking.submit(int)

    async def start(self, role: str, boot: ChildBoot, until: Callable[[], float]) -> Child:
        """Fork a child that becomes ``role`` (``module:function``); ``until`` returns the end of the child's lease.

        Raises OSError or EOFError if the process cannot be forked, and StuckFork, which is an OSError, if the process
        does not reach its role within a lease.
        """
        forked = await asyncio.get_running_loop().run_in_executor(self._forking, self._start, role, boot)
        await self._wait_booted(forked)
        # Read only now: loading the app before the first fork may take longer than a lease.
        boot.until = until()
        with contextlib.suppress(OSError):  # the child has died, which on_death reports
            forked.sock.sendall(pack(boot))
        return forked

    def replace_server(self) -> None:
        """End the fork server: the next fork starts another, which loads the app again. Existing forks live on."""
        # Not in the thread that forks, which may wait for a fork server that hangs.
        pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
        if pid is not None:
            # Not reaped here, so the id is still its own: multiprocessing reaps it when it starts another.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A cleaner of temporary files may have removed the folders that hold the socket.
        folder = Path(multiprocessing.util.get_temp_dir())
        for each in (folder.parent, folder):
            with contextlib.suppress(OSError):
                each.mkdir(mode=0o700)

    async def _wait_booted(self, forked: Child) -> None:
        """Wait until the process has passed every hook that runs after a fork, or is dead."""
        forked.sock.setblocking(False)
        try:
            async with asyncio.timeout(self._boot_timeout):
                await asyncio.get_running_loop().sock_recv(forked.sock, len(child.BOOTED))
        except TimeoutError:
            forked.on_death(forked.sock.close)
            forked.signal(signal.SIGKILL)
            raise StuckFork(
                f"process {forked.pid} did not reach its role within {self._boot_timeout:g} s after the fork, killed; "
                "a hook that runs after a fork waits, which happens if the app opens connections when it is imported "
                "or takes a lock: open connections inside daemons and tasks"
            ) from None
        except OSError:
            pass  # the child has died, which on_death reports

    def _start(self, role: str, boot: ChildBoot) -> Child:
        ours, theirs = socket.socketpair()
        try:
            process = self._context.Process(
                target=child.run,
                args=(role, theirs, self._lifeline),
                name=boot.title.partition(":")[0].replace("celery_daemons.", "daemons-"),
            )
            process.start()
            # The next start() would poll the process, which fails if the loop closes it at that moment.
            multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Child(process, ours)
