"""The interpreter's own primitives, bound before the user's app can replace them by those of gevent or eventlet.

A host has to renew its lease in a real thread, whatever the app's modules patch: a greenlet would not run while the
daemon computes. Import names from here, and keep this module imported before the app is loaded.
"""

import _thread
from _thread import _local as thread_local
from _thread import allocate_lock, start_new_thread
from queue import SimpleQueue
from select import select
from socket import socket

__all__ = [
    "SimpleQueue",
    "allocate_lock",
    "select",
    "socket",
    "start_new_thread",
    "thread_local",
    "threads_are_green",
]


def threads_are_green() -> bool:
    """Return whether threads that the app starts are greenlets of a single real thread."""
    return _thread.start_new_thread is not start_new_thread
