"""A signal that something has changed, for threads and for coroutines that wait until a condition holds."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class ChangeSignal:
    """Waits until a function returns something; the function is called again after each :meth:`notify`."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._callbacks: set[Callable[[], None]] = set()

    def notify(self) -> None:
        """Report a change, from any thread."""
        with self._condition:
            self._condition.notify_all()
        for callback in tuple(self._callbacks):
            callback()

    def wait_for(self, found: Callable[[], T | None], seconds: float) -> T | None:
        """Return what ``found`` returns; ``None`` if that is nothing for ``seconds``. Blocks the thread."""
        with self._condition:
            return self._condition.wait_for(found, seconds)

    async def wait_for_async(self, found: Callable[[], T | None], seconds: float) -> T | None:
        """Return what ``found`` returns; ``None`` if that is nothing for ``seconds``. Does not block the event loop."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def callback() -> None:
            # The loop may have been closed during the wait.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        self._callbacks.add(callback)
        try:
            async with asyncio.timeout(seconds):
                while (result := found()) is None:
                    await changed.wait()
                    changed.clear()
                return result
        except TimeoutError:
            return None
        finally:
            self._callbacks.discard(callback)
