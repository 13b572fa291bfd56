"""Answer what clients ask about the daemons of this node: log lines and stacks."""

import asyncio
import itertools
import time
from typing import Final

from celery_daemons.domain.names import DaemonName
from celery_daemons.node.host_pool import HostPool
from celery_daemons.node.log_files import LogFiles, read_lines
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.wire.inspection import (
    MOST_LINES,
    Answer,
    Lines,
    LogsQuery,
    Position,
    Query,
    Refusal,
    Stack,
    StackQuery,
)
from celery_daemons.wire.log_ring import LogLine

#: Seconds between two checks for a new line while a client follows a log.
_FOLLOW_TICK: Final = 0.05
#: The most seconds for which one question waits for a line; the follower then asks again.
_LONGEST_WAIT: Final = 10.0
#: Nanoseconds by which the time of a write may lag: a file that was written this recently is read once more.
_STAMP_LAG: Final = 20_000_000
#: Seconds for a host to answer. Its watcher only needs the GIL.
_HOST_TIMEOUT: Final = 2.0
#: Characters of the messages in one answer.
_ANSWER_LENGTH: Final = 256 * 1024


class Inspector:
    """Reads the log files of hosts, and passes questions about stacks on to the hosts."""

    def __init__(self, *, supervisor: Supervisor, hosts: HostPool, files: LogFiles) -> None:
        self._supervisor = supervisor
        self._hosts = hosts
        self._files = files
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Stack | Refusal]] = {}

    async def answer(self, query: Query) -> Answer:
        """Return the answer to a question."""
        if isinstance(query, StackQuery):
            return await self._stack(query.name)
        return await self._lines(query)

    def on_stack(self, question: int, answer: Stack | Refusal) -> None:
        """Take the answer of a host; a late answer is dropped."""
        future = self._pending.pop(question, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _stack(self, name: DaemonName) -> Answer:
        placed = self._supervisor.placed(name)
        if placed is None:
            return Refusal(why="this node no longer has it")
        if placed.host is None or placed.host not in self._hosts:
            return Refusal(why=f"it is {placed.state}: no process runs it now")
        question = next(self._ids)
        future: asyncio.Future[Stack | Refusal] = asyncio.get_running_loop().create_future()
        self._pending[question] = future
        host = self._hosts[placed.host]
        host.ask_stack(question, name)
        try:
            async with asyncio.timeout(_HOST_TIMEOUT):
                return await future
        except TimeoutError:
            what = f"its process {host.pid} does not answer within {_HOST_TIMEOUT:g} s"
            return Refusal(why=f"{what}: it loads the app, is stopped, or a call into C holds the GIL")
        finally:
            self._pending.pop(question, None)

    async def _lines(self, query: LogsQuery) -> Answer:
        deadline = time.monotonic() + min(query.wait, _LONGEST_WAIT)
        while True:
            placed = self._supervisor.placed(query.name)
            host = placed.host if placed is not None else None
            stamp = self._files.stamp(host)
            read_at = time.time_ns()
            found = await asyncio.to_thread(read_lines, self._files.paths(), query.name)
            new = [line for line in found if Position(line.token, line.number) > query.after]
            if new or time.monotonic() >= deadline:
                return Lines(lines=_newest(new, query.lines), runs=placed is not None)
            while time.monotonic() < deadline:
                await asyncio.sleep(_FOLLOW_TICK)
                now = self._supervisor.placed(query.name)
                if now != placed or self._files.stamp(host) != stamp or stamp[0] > read_at - _STAMP_LAG:
                    break


def _newest(lines: list[LogLine], most: int) -> list[LogLine]:
    """Return the last lines, as many as one answer may hold."""
    chosen: list[LogLine] = []
    length = 0
    for line in reversed(lines[-min(most, MOST_LINES) :] if most else []):
        length += len(line.message)
        if length > _ANSWER_LENGTH and chosen:
            break
        chosen.append(line)
    return chosen[::-1]
