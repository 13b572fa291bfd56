"""The actor: the person or process that asks for a change, which the journal records with it."""

import getpass
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from celery._state import get_current_task

from celery_daemons.errors import ConfigurationError

#: The most characters that the journal keeps: entries take memory in Redis and in every process that reads the journal.
LONGEST: Final = 128

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_acting: ContextVar[str | None] = ContextVar("celery_daemons_actor", default=None)


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Record ``actor`` in the journal with the changes made in the ``with`` block, for example ``"web:alice"``.

    The actor applies to this thread, or to this asyncio task and the tasks and threads that it starts, and is cut after
    128 characters. Outside of such a block, the actor is the Celery task that makes the call, or else the user, machine
    and process. The actor is informational only and not authenticated: a client that may write to Redis may write any
    actor.

    Raises :exc:`~celery_daemons.ConfigurationError` for an actor that is no text or is empty.
    """
    given: object = actor
    if not isinstance(given, str) or not given.strip():
        raise ConfigurationError(f"acting_as: {actor!r} is no actor; give a text such as 'web:alice'")
    token = _acting.set(shortened(actor))
    try:
        yield
    finally:
        _acting.reset(token)


def current_actor() -> str:
    """Return the actor of changes made now."""
    acting = _acting.get()
    if acting is not None:
        return acting
    task = get_current_task()
    if task is not None and task.request.id:
        return shortened(f"task:{task.name}[{task.request.id}]")
    return shortened(f"api:{user_and_process()}")


def user_and_process() -> str:
    """Return ``user@machine:process id`` of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def shortened(actor: str) -> str:
    """Return a text without control characters, and cut it if it is too long."""
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", actor.strip())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
