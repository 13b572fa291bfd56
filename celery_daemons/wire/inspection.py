"""What clients ask the agent of a node about a daemon, and the answers; stacks come from the daemon's host.

They are encoded as JSON in Redis, and as MessagePack between agent and host.
"""

from typing import Final

import msgspec

from celery_daemons.domain.names import DaemonName
from celery_daemons.wire.log_ring import LogLine

#: The most lines that one answer holds; the ring of a daemon has fewer bytes than this many short lines.
MOST_LINES: Final = 2000


class Position(msgspec.Struct, array_like=True, frozen=True, order=True):
    """A line of a daemon's log: tokens grow from run to run, the numbers of lines within the host of a run."""

    token: int = 0
    number: int = 0


class LogsQuery(msgspec.Struct, frozen=True, kw_only=True, tag="logs"):
    """The last ``lines`` lines of a daemon after a position; wait up to ``wait`` seconds for the first one."""

    name: DaemonName
    lines: int
    after: Position = Position()
    wait: float = 0.0


class StackQuery(msgspec.Struct, frozen=True, kw_only=True, tag="stack"):
    """Where the code of a daemon is now."""

    name: DaemonName


Query = LogsQuery | StackQuery


class StackFrame(msgspec.Struct, frozen=True):
    """A line of code in a stack; ``code`` is its text, empty if the source is not readable."""

    file: str
    line: int
    function: str
    code: str


class ThreadStack(msgspec.Struct, frozen=True):
    """The stack of a task or thread, outermost frame first."""

    name: str
    frames: list[StackFrame]


class Stack(msgspec.Struct, frozen=True, kw_only=True, tag="stack"):
    """The stacks of a daemon.

    ``kind`` is ``task``, ``thread`` or ``process``. The other fields are set for a task on the event loop of a shared
    host: ``holds_loop_for`` is the number of seconds for which its present step runs, ``None`` while the task waits;
    ``cpu_seconds`` is the processor time that the run has used, and ``stalls`` how often the run has blocked the loop,
    for ``stall_seconds`` together.
    """

    kind: str
    pid: int
    token: int
    stacks: list[ThreadStack]
    holds_loop_for: float | None = None
    cpu_seconds: float | None = None
    stalls: int | None = None
    stall_seconds: float | None = None


class Lines(msgspec.Struct, frozen=True, kw_only=True, tag="lines"):
    """Lines of a daemon's log, oldest first; ``runs`` says whether the node has the daemon now."""

    lines: list[LogLine]
    runs: bool


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """Why there is no answer, as a clause."""

    why: str


Answer = Stack | Lines | Refusal
