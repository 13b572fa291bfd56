"""Which daemon the present code belongs to: set in the context of its task or thread, and inherited by its tasks."""

import contextlib
from collections.abc import Iterator
from contextvars import Context, ContextVar
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, Token


class Run:
    """A run of a daemon in this process, and how much of the event loop and the processor the run has used."""

    __slots__ = ("cpu_seconds", "launcher", "name", "partial", "stall_seconds", "stalls", "token")

    def __init__(self, name: DaemonName, launcher: LauncherName, token: Token) -> None:
        self.name = name
        self.launcher = launcher
        self.token = token
        #: Processor time of the steps on the event loop, in seconds.
        self.cpu_seconds = 0.0
        #: How often, and for how many seconds together, the daemon has blocked the event loop.
        self.stalls = 0
        self.stall_seconds = 0.0
        #: What was printed to each stream since the last line break; ``None`` if nothing was printed.
        self.partial: dict[str, str] | None = None

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Attribute the code of the ``with`` block, and the tasks and callbacks that it creates, to this run."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: Final[ContextVar[Run | None]] = ContextVar("celery_daemons_run", default=None)


def current_run() -> Run | None:
    """Return the run to which the calling code belongs, ``None`` outside of daemons."""
    return _current.get()


def run_of(context: Context) -> Run | None:
    """Return the run to which a context belongs."""
    return context.get(_current)
