"""Call a recovery scanner in its thread and iterate what it lists, whatever kind of function the scanner is."""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from celery_daemons.forkserver.app_connections import close_django
from celery_daemons.launcher import Launcher, scanning
from celery_daemons.signals import scan_finished, scan_started

_Run = Callable[[Awaitable[Any]], Any]


@contextmanager
def scan_thread(launcher: Launcher[...]) -> Iterator[None]:
    """Prepare the calling thread for the recovery scanner of a launcher, and leave no connection of the scan open.

    Celery and Django close connections after tasks and requests only, and this thread ends with the scan.
    """
    scanning.set(True)
    scan_started.send(sender=launcher.name, launcher=launcher)
    try:
        yield
    finally:
        scan_finished.send(sender=launcher.name, launcher=launcher)
        close_django()


def items_of(scanner: Callable[[], Any]) -> Generator[object, None, None]:
    """Yield what a recovery scanner lists, in pages or one by one. Raises TypeError if that cannot be iterated.

    Close the generator after use: it may hold an event loop.
    """
    found = scanner()
    if not inspect.iscoroutine(found) and not hasattr(found, "__aiter__"):
        yield from _flat(found)
        return
    with _event_loop() as run:
        if inspect.iscoroutine(found):
            found = run(found)
        if hasattr(found, "__aiter__"):
            found = _drained(found, run)
        yield from _flat(found)


def _flat(found: object) -> Iterator[object]:
    if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
        raise TypeError(f"returned {found!r:.80}; a recovery scanner must return or yield specs")
    for item in found:
        if isinstance(item, (list, tuple, set)):
            yield from item
        else:
            yield item


def _drained(found: Any, run: _Run) -> Iterator[object]:
    """Yield the items of an async generator, a step of the event loop for each."""
    iterator = found.__aiter__()
    while True:
        try:
            yield run(anext(iterator))
        except StopAsyncIteration:
            return


@contextmanager
def _event_loop() -> Iterator[_Run]:
    """Return a function that runs awaitables on an event loop of this thread, all in one context.

    Under Django, the scan gets a database thread of its own, as each request of an ASGI server does. In the thread that
    asgiref uses otherwise, one scanner whose query hangs would delay the others, and connections would stay open.
    """
    with asyncio.Runner() as runner:

        def run(awaitable: Awaitable[Any]) -> Any:
            return runner.run(_awaited(awaitable))

        if "django.db" not in sys.modules:
            yield run
            return
        from asgiref.sync import ThreadSensitiveContext, sync_to_async

        context = ThreadSensitiveContext()
        run(context.__aenter__())
        try:
            yield run
        finally:
            run(sync_to_async(close_django)())
            run(context.__aexit__(None, None, None))


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
