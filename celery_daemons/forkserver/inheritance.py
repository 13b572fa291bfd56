"""What a forked process of a node takes from the fork server, and what its own children take from it.

The page "Internals" of the documentation has the whole table. Everything here runs before any code of a daemon.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import weakref
from socket import socket
from typing import Any, Final

from celery_daemons.forkserver.unpatched import thread_local

#: The environment variable by which the agent's interpreter finds this package.
_PYTHON_PATH: Final = "PYTHONPATH"
#: Handlers of SIGTERM and SIGINT from these modules do nothing useful outside of the process that has set them.
_MODULES_OF_PARENT: Final = ("celery_daemons.", "asyncio.", "uvloop")


def restore_python_path(worker_value: str | None) -> None:
    """Give the environment the worker's ``PYTHONPATH``: programs that daemons start must not find our packages."""
    os.environ.pop(_PYTHON_PATH, None)
    if worker_value is not None:
        os.environ[_PYTHON_PATH] = worker_value


def keep_working_directory_importable() -> None:
    """Put the working directory back on ``sys.path``: Celery removes the directory after importing the app.

    Otherwise children that multiprocessing starts with ``spawn`` or ``forkserver`` cannot import the app.
    """
    folder = str(os.getcwd())  # noqa: PTH109 - the same text that Celery inserts
    if folder not in sys.path:
        sys.path.insert(0, folder)


def become_leader_of_own_group() -> None:
    """Start a process group, by which this process and all descendants can be killed at once."""
    with contextlib.suppress(PermissionError):  # the process leads a session already
        os.setpgid(0, 0)


def kill_own_group() -> None:
    """Kill this process and the rest of the process group: no agent is left to do so."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def leave_fork_server(start_method: str | None) -> None:
    """Undo what only the fork server needs.

    ``start_method`` is what the app has chosen for multiprocessing, ``None`` for the platform's default. Functions
    that the app registered with atexit or :class:`weakref.finalize` when it was imported belong to the fork server:
    one of them may remove a folder that all forks use.
    """
    multiprocessing.set_start_method(start_method, force=True)
    atexit._clear()
    finalizers: Any = weakref.finalize
    for inherited in list(finalizers._registry):
        inherited.atexit = False
    finalizers._registered_with_atexit = False


def ignore(_number: int, _frame: object) -> None:
    """Do nothing. Unlike ``SIG_IGN``, a handler is not inherited by programs that a daemon starts."""


def ignore_signals_of_the_group() -> None:
    """Ignore SIGINT and SIGTERM: only the agent may end a host, not a terminal or a service manager."""
    signal.signal(signal.SIGINT, ignore)
    signal.signal(signal.SIGTERM, ignore)


def free_children_of(sock: socket) -> None:
    """Make every fork of this process an ordinary process, which a signal ends and which cannot write to the agent.

    ``sock`` is the socket to the agent.
    """
    mask_before = thread_local()

    def hold_signals() -> None:
        # A signal for the child that arrives before its handlers are reset would be lost.
        mask_before.value = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    def release_signals() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before.value)

    def become_ordinary() -> None:
        with contextlib.suppress(OSError):
            os.close(sock.detach())
        # The wake-up descriptor belongs to the parent's loop: the child's signals would arrive in the parent.
        signal.set_wakeup_fd(-1)
        for number, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            handler = signal.getsignal(number)
            if str(getattr(handler, "__module__", "")).startswith(_MODULES_OF_PARENT):
                signal.signal(number, default)
        release_signals()

    os.register_at_fork(before=hold_signals, after_in_parent=release_signals, after_in_child=become_ordinary)
