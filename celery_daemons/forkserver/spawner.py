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
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

import msgspec

from celery_daemons.forkserver import child
from celery_daemons.wire.channel import pack
from celery_daemons.wire.messages import PRELOAD_VARIABLE, Boot, ChildBoot, Preload

#: Named, not imported: the module imports the user's app, which the agent must never do.
_PRELOAD_MODULE: Final = "celery_daemons.forkserver.preload"


class Child:
    """One forked process, which counts as dead only when the kernel reports the death."""

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

    def reap(self) -> None:
        """Release what multiprocessing keeps for the process. Call only after the process has died."""
        self._process.join(1)
        with contextlib.suppress(ValueError):
            self._process.close()


class Spawner:
    """Forks the hosts and the monitor of a node. The first fork waits until the user's app is loaded."""

    def __init__(self, boot: Boot, lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        preload = Preload(
            node=boot.node, app=boot.app, sys_path=boot.sys_path, loglevel=boot.loglevel, logfile=boot.logfile
        )
        # json.dumps writes ASCII only: the environment cannot hold every path in every locale.
        os.environ[PRELOAD_VARIABLE] = json.dumps(msgspec.to_builtins(preload))
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOAD_MODULE])
        # One fork at a time: the fork server handles requests one after the other in any case.
        self._lock = asyncio.Lock()

    async def start(self, role: str, boot: ChildBoot, until: Callable[[], float]) -> Child:
        """Fork a child that becomes ``role`` (``module:function``); ``until`` returns the end of the child's lease.

        Raises OSError or EOFError if the process cannot be forked.
        """
        async with self._lock:
            forked = await asyncio.to_thread(self._start, role, boot)
        # Read only now: loading the app before the first fork may take longer than a lease.
        boot.until = until()
        with contextlib.suppress(OSError):  # the child has died, which on_death reports
            forked.sock.sendall(pack(boot))
        return forked

    async def replace_server(self) -> None:
        """End the fork server, so that the next fork starts another, which loads the app again. Its forks live on."""
        await asyncio.to_thread(self._end_server)

    def _end_server(self) -> None:
        # Without the lock: a fork may be waiting for a fork server that hangs.
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

    def _start(self, role: str, boot: ChildBoot) -> Child:
        ours, theirs = socket.socketpair()
        try:
            process = self._context.Process(
                target=child.run,
                args=(role, theirs, self._lifeline),
                name=boot.title.partition(":")[0].replace("celery_daemons.", "daemons-"),
            )
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Child(process, ours)
