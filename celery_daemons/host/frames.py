"""Describe where code is: the stack of a thread, and the coroutines that a task awaits."""

import asyncio
import linecache
import sys
import threading
from asyncio import events
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final

from celery_daemons.launcher import Launcher
from celery_daemons.wire.inspection import StackFrame, ThreadStack

#: The most frames of a stack; of a deeper stack, the innermost are kept.
_MOST_FRAMES: Final = 100
#: The most threads of a process that are described.
_MOST_THREADS: Final = 200
#: An event loop calls this for each step: the frames outside of it are those of the loop.
_STEP: Final[CodeType] = events.Handle._run.__code__
#: Calls the code of a daemon: the frames outside of it are those of the host.
_START: Final[CodeType] = Launcher.start.__code__


def thread_frames(ident: int) -> list[StackFrame]:
    """Return the stack of a thread, empty if there is no such thread."""
    return _described(_outwards(sys._current_frames().get(ident)))


def step_frames(ident: int) -> list[StackFrame]:
    """Return the stack of the callback that an event loop in a thread executes, without the frames of the loop."""
    frames = []
    for frame, line in _outwards(sys._current_frames().get(ident)):
        if frame.f_code is _STEP:
            break
        frames.append((frame, line))
    return _described(iter(frames))


def task_frames(task: "asyncio.Task[Any]") -> list[StackFrame]:
    """Return the chain of coroutines and generators that a task awaits, outermost first."""
    frames: list[tuple[FrameType, int]] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(frames) < _MOST_FRAMES:
        frame, following = _of_awaitable(awaited)
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        awaited = following
    return _described(reversed(frames))


def all_threads() -> list[ThreadStack]:
    """Return the stack of each thread of this process, the main thread first."""
    main = threading.main_thread().ident
    # Not threading.enumerate(): it waits for a lock that the thread in question may hold.
    names = {ident: thread.name for ident, thread in dict(threading._active).items()}  # type: ignore[attr-defined]
    current = threading.get_ident()
    found = sorted(sys._current_frames().items(), key=lambda item: (item[0] != main, item[0]))
    return [
        ThreadStack(names.get(ident, f"thread {ident}"), _described(_outwards(frame)))
        for ident, frame in found[:_MOST_THREADS]
        if ident != current and not _is_own(frame)
    ]


def as_text(frames: list[StackFrame]) -> str:
    """Return a stack in the form of a traceback."""
    lines = []
    for frame in frames:
        lines.append(f'  File "{frame.file}", line {frame.line}, in {frame.function}')
        if frame.code:
            lines.append(f"    {frame.code}")
    return "\n".join(lines)


def _of_awaitable(awaited: Any) -> tuple[FrameType | None, Any]:
    """Return the frame of a coroutine, generator or async generator, and what it awaits."""
    for prefix, following in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaited, f"{prefix}_frame", None)
        if frame is not None:
            return frame, getattr(awaited, following, None)
    return None, None


def _outwards(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a stack, innermost first, up to the one that has called the code of a daemon."""
    while frame is not None and frame.f_code is not _START:
        yield frame, frame.f_lineno or 0
        frame = frame.f_back


def _described(innermost_first: Iterator[tuple[FrameType, int]]) -> list[StackFrame]:
    frames = []
    for frame, line in innermost_first:
        code = frame.f_code
        text = linecache.getline(code.co_filename, line, frame.f_globals).strip()
        frames.append(StackFrame(code.co_filename, line, code.co_qualname, text))
        if len(frames) >= _MOST_FRAMES:
            break
    frames.reverse()
    return frames


def _is_own(frame: FrameType) -> bool:
    """Return whether a thread belongs to the host and not to the daemon: its outermost frame is in this package."""
    while frame.f_back is not None:
        frame = frame.f_back
    package: object = frame.f_globals.get("__name__", "")
    return isinstance(package, str) and package.startswith("celery_daemons.host.")
