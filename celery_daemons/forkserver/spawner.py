"""Starting processes for a node by forking a server that has the user's app loaded, and ending them for certain."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from celery_daemons.forkserver import child
from celery_daemons.forkserver.preload import ENVIRONMENT
from celery_daemons.wire.channel import pack
from celery_daemons.wire.messages import Boot, ChildBoot


class Child:
    """One forked process; known dead only when the kernel says so."""

    def __init__(self, process: Any, sock: socket.socket) -> None:
        self.pid: int = process.pid
        self.sock = sock
        self._process = process
        # The pid is not reused while this is open, and it is readable once the process is dead.
        self._pidfd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else os.dup(process.sentinel)

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call back once, in the running loop, when the process is dead."""
        loop = asyncio.get_running_loop()

        def dead() -> None:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            callback()

        loop.add_reader(self._pidfd, dead)

    def signal(self, number: int) -> None:
        """Send a signal, if the process is not dead yet."""
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)

    def reap(self) -> None:
        """Let go of what the parent keeps for the process; after its death."""
        self._process.join(1)
        with contextlib.suppress(ValueError):
            self._process.close()


class Spawner:
    """Forks children of one node; the first fork waits until the user's app is loaded."""

    def __init__(self, boot: Boot, lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        os.environ[ENVIRONMENT] = json.dumps(
            {
                "app": boot.app,
                "sys_path": boot.sys_path,
                "node": boot.node,
                "loglevel": boot.loglevel,
                "logfile": boot.logfile,
            }
        )
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([preload_module])
        # One at a time: the fork server answers in order anyway.
        self._lock = asyncio.Lock()

    async def start(self, role: str, boot: ChildBoot, until: Callable[[], float]) -> Child:
        """Fork a child that becomes ``role``; ``until`` is asked for the end of its lease once it is there."""
        async with self._lock:
            forked = await asyncio.to_thread(self._start, role, boot)
        # Not before: a fork server that has to load the app first may take as long as a lease.
        boot.until = until()
        with contextlib.suppress(OSError):  # its death is seen elsewhere
            forked.sock.sendall(pack(boot))
        return forked

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


preload_module = "celery_daemons.forkserver.preload"
