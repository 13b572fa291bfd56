"""Close database connections between the rounds of daemons, as Django does between requests.

Each round of a daemon counts as a request: connections that are broken or older than ``CONN_MAX_AGE`` are closed in the
thread that opened them, but not inside ``transaction.atomic()``. A coroutine runs queries through ``sync_to_async``, in
a thread of asgiref. Its connections are closed in that thread, and the event loop does not wait for that: the thread
carries out calls in the order in which they are made.
"""

import asyncio
import logging
import os
import threading
from typing import Any
from weakref import WeakSet

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.db.backends.signals import connection_created

from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.signals import daemon_beat, daemon_failed, daemon_started, daemon_stopped

logger = logging.getLogger(__name__)


def connect_receivers() -> None:
    """Close old connections before each daemon starts, in ``ctx.beat()`` and ``ctx.sleep()``, and after its end."""
    for signal in (daemon_started, daemon_beat, daemon_stopped, daemon_failed):
        signal.connect(_upkeep.close_old, dispatch_uid="celery_daemons.contrib.django")
    connection_created.connect(_upkeep.note_connection, dispatch_uid="celery_daemons.contrib.django")


class _Upkeep:
    """The connections that this process has opened, and the pending calls to the thread of asgiref."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: WeakSet[Any] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queued = False
        # A fork must not close connections of its parent: the server would end the session that both use.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._opened = WeakSet()
        self._tasks = set()
        self._queued = False

    def note_connection(self, connection: Any, **_: Any) -> None:
        """Remember a connection that was opened in this process."""
        with self._lock:
            self._opened.add(connection)

    def close_old(self, ctx: DaemonContext | BlockingDaemonContext, **_: Any) -> None:
        """Close old connections of the thread that runs the queries of a daemon."""
        if not self._any_open():
            # Most coroutine daemons use no database and need no call in another thread.
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _close_in_this_thread()
            return
        # One call in the queue of the shared thread is enough: later queries come after it. Without this limit, the
        # calls of thousands of daemons would accumulate while a query hangs.
        shared = SyncToAsync.thread_sensitive_context.get(None) is None
        if shared and self._queued:
            return
        self._queued = self._queued or shared
        task = loop.create_task(self._close_in_thread(ctx.name, shared=shared))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _any_open(self) -> bool:
        with self._lock:
            return any(connection.connection is not None for connection in self._opened)

    async def _close_in_thread(self, name: str, *, shared: bool) -> None:
        def close() -> None:
            if shared:
                self._queued = False
            _close_in_this_thread()

        try:
            await sync_to_async(close)()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            logger.warning("daemon %s: old database connections could not be closed: %r", name, error)
        finally:
            # Also if the task was cancelled before the thread carried out the call.
            self._queued = self._queued and not shared


def _close_in_this_thread() -> None:
    # Like close_old_connections, which a request never calls inside a transaction, but a daemon may.
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


_upkeep = _Upkeep()
