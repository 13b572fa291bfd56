"""Connections that the user's app has opened while it was loaded: closed in the fork server, or reported by name.

Two forks that use one connection read each other's answers.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

logger = logging.getLogger(__name__)

#: Seconds in which connections have to close. Closing may wait for an answer of the other side; hosts start after it.
_CLOSE_TIMEOUT: Final = 5.0


class _CloseTimeout(Exception):
    """Closing a connection took too long."""


def open_descriptors() -> frozenset[int]:
    """Return the file descriptors of this process; empty on a system that does not list descriptors."""
    with contextlib.suppress(OSError):
        return frozenset(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    return frozenset()


def close_all(node: str, *, opened_before: frozenset[int]) -> None:
    """Close what Celery and Django hold open, and warn about other sockets, except those in ``opened_before``.

    Call in the main thread, before the first fork.
    """
    for close in (_close_celery, _close_django):
        try:
            with _time_limit(_CLOSE_TIMEOUT):
                close()
        except _CloseTimeout:
            logger.error(
                "node %s: a connection that the app opened when it was imported did not close within %.0f s; "
                "processes of this node may hang: open connections inside daemons and tasks",
                node,
                _CLOSE_TIMEOUT,
            )
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            logger.warning("node %s: a connection of the app could not be closed before a fork: %r", node, error)
    peers = sorted({peer for fd in open_descriptors() - opened_before if (peer := _peer(fd))})
    if peers:
        logger.warning(
            "node %s: the app has connections open when it is imported, and every daemon's process inherits them: %s; "
            "processes that share a connection read each other's answers: open it inside the daemon, or in a handler "
            "of celery.signals.worker_process_init",
            node,
            ", ".join(peers),
        )


def _close_celery() -> None:
    from celery import _state
    from kombu import pools

    pools.reset()
    for app in _state._get_active_apps():
        _forget_result_backend(app)
        app._after_fork()


def _forget_result_backend(app: Any) -> None:
    """Close the subscription and the connections of an app's result backend; each fork then makes another."""
    backend = app._backend
    if backend is None:
        return
    consumer = getattr(backend, "result_consumer", None)
    if consumer is not None:
        consumer.stop()
    pool = getattr(vars(backend).get("client"), "connection_pool", None)
    if pool is not None:
        pool.disconnect()
    app._backend_cache = None
    vars(app._local).pop("backend", None)


def _close_django() -> None:
    """Close Django's connections, and the pools from which a fork would take connections of this process."""
    database = _django_databases()
    if database is None:
        return
    pooled = [one for one in database.all(initialized_only=True) if one.settings_dict["OPTIONS"].get("pool")]
    close_django()
    for connection in pooled:
        connection.close_pool()


def close_django() -> None:
    """Close the connections of Django's databases and caches that belong to the calling thread. Errors are logged.

    For threads that end: Django keeps connections per thread, and nothing else would close them.
    """
    database = _django_databases()
    if database is None:
        return
    for connection in database.all(initialized_only=True):
        _close_quietly(connection.close, f"database {connection.alias}")
    caches = sys.modules.get("django.core.cache")
    if caches is not None:
        _close_quietly(caches.close_caches, "caches")


def _close_quietly(close: Callable[[], object], what: str) -> None:
    try:
        close()
    except Exception as error:  # noqa: BLE001 - a driver may raise anything
        logger.warning("connection of Django's %s could not be closed: %r", what, error)


def _django_databases() -> Any:
    """Return Django's connections if the app uses Django, else ``None``."""
    database = sys.modules.get("django.db")
    if database is None or not sys.modules["django.conf"].settings.configured:
        return None
    return database.connections


def _peer(fd: int) -> str:
    """Return the peer's address of a descriptor; empty unless the descriptor is a connected, named socket."""
    try:
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            address: Any = duplicate.getpeername()
    except OSError:
        return ""
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def expired(_number: int, _frame: object) -> None:
        raise _CloseTimeout

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
