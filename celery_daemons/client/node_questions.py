"""Ask nodes about their daemons: log lines and stacks. The agent answers even while the daemon's process is blocked."""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from celery_daemons.client.lookups import Lookups
from celery_daemons.domain.names import DaemonName, NodeName, daemon_name
from celery_daemons.errors import DaemonsError
from celery_daemons.store import questions
from celery_daemons.store.connection import Store
from celery_daemons.wire.inspection import Answer, Lines, LogsQuery, Position, Query, Refusal, Stack, StackQuery
from celery_daemons.wire.log_ring import LogLine

#: Seconds for a node to answer: its agent forwards some questions to a host, which has two seconds.
_TIMEOUT: Final = 5.0
#: Seconds of one wait for an answer; a command of the store has five.
_WAIT: Final = 2.0
#: Seconds for which a node waits for a line before it answers a follower.
_FOLLOW_WAIT: Final = 2.0
#: Seconds between two attempts of a follower while the daemon is on no node.
_NO_NODE_PAUSE: Final = 0.2
#: Entries of the journal that are searched for the last node of a daemon that runs nowhere.
_JOURNAL: Final = 10_000
#: Events after which a daemon has been on the node that the entry names.
_EVENTS_OF_RUNS: Final = frozenset(("claim", "report", "release"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """Lines of a daemon's log, and the node that has them; ``runs`` says whether the daemon is on that node now."""

    node: NodeName
    runs: bool
    lines: tuple[LogLine, ...]


class NodeQuestions:
    """Asks the nodes of one cluster. Every method may raise StoreUnavailable, or DaemonsError without an answer."""

    def __init__(self, store: Store, lookups: Lookups) -> None:
        self._store = store
        self._lookups = lookups

    def logs(self, name: str, *, lines: int) -> LogSource:
        """Return the last lines of a daemon, from its node or, if it runs nowhere, from the last node it was on.

        Raises DaemonsError if the daemon is not known, or if its node does not answer.
        """
        wanted = daemon_name(name)
        return self._read(self.node_of(wanted), LogsQuery(name=wanted, lines=lines))

    def follow(self, name: str, after: LogSource) -> Iterator[LogSource]:
        """Yield new lines of a daemon without end, from each node that it moves to; empty ones without news."""
        wanted, node = daemon_name(name), after.node
        position = _end(after, Position())
        while True:
            here = self._node_now(wanted)
            if here is not None and here != node:
                # The lines on the old node until the daemon left, then all lines on the new node.
                with suppress(NodeSilent):
                    left = self._read(node, LogsQuery(name=wanted, lines=1000, after=position))
                    position = _end(left, position)
                    yield left
                node = here
            try:
                query = LogsQuery(name=wanted, lines=1000, after=position, wait=_FOLLOW_WAIT if here else 0.0)
                found = self._read(node, query)
            except NodeSilent:
                found = LogSource(node=node, runs=False, lines=())
            position = _end(found, position)
            yield found
            if not found.runs:
                time.sleep(_NO_NODE_PAUSE)

    def stack(self, name: str) -> tuple[NodeName, Stack]:
        """Return the node of a daemon, and where its code is now.

        Raises DaemonsError if the daemon is on no node, or if its node or process does not answer.
        """
        wanted = daemon_name(name)
        address = self._lookups.locate(wanted)
        if address is None:
            raise DaemonsError(f"daemon {name} has no stack: {self._lookups.why_not(name)}")
        answer = self.ask(address.node, StackQuery(name=wanted))
        if isinstance(answer, Stack):
            return address.node, answer
        raise DaemonsError(f"daemon {name} on node {address.node}: no stack: {_why(answer)}")

    def ask(self, node: NodeName, query: Query) -> Answer:
        """Return the answer of a node. Raises NodeSilent."""
        question_id = secrets.token_hex(16)
        body = msgspec.json.encode(query)
        patience = _TIMEOUT + (query.wait if isinstance(query, LogsQuery) else 0.0)
        call = questions.ask(self._store.keys, node, question_id, body, ttl_ms=round(1000 * patience))
        accepted = self._store.run(call)
        if accepted == 0:
            raise NodeSilent(f"node {node} is gone: its lease has ended, and its log lines are gone with it")
        if accepted < 0:
            raise NodeSilent(f"node {node} does not take questions: too many wait already; its agent hangs")
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            raw = questions.wait_answer(self._store, question_id, seconds=min(_WAIT, left))
            if raw is not None:
                answer: Answer = msgspec.json.decode(raw, type=Answer)
                return answer
        raise NodeSilent(
            f"node {node} does not answer within {patience:g} s: its agent is stopped, or its version has no answers; "
            "read the worker's log"
        )

    def node_of(self, name: DaemonName) -> NodeName:
        """Return the node of a daemon, or the last one it was on. Raises DaemonsError if there is none."""
        record = self._lookups.record(name)
        if record is not None and record.node is not None:
            return record.node
        for entry in reversed(self._lookups.events(last=_JOURNAL)):
            if entry.node and entry.event in _EVENTS_OF_RUNS and any(item[0] == name for item in entry.items):
                return NodeName(entry.node)
        if record is None:
            raise DaemonsError(f"no daemon {name} is known; `celery -A … daemons list` shows all daemons")
        raise DaemonsError(f"daemon {name} has no log lines: {self._lookups.why_not(name)}")

    def _node_now(self, name: DaemonName) -> NodeName | None:
        address = self._lookups.locate(name)
        return address.node if address is not None else None

    def _read(self, node: NodeName, query: LogsQuery) -> LogSource:
        answer = self.ask(node, query)
        if not isinstance(answer, Lines):
            raise NodeSilent(f"daemon {query.name} on node {node}: no log lines: {_why(answer)}")
        return LogSource(node=node, runs=answer.runs, lines=tuple(answer.lines))


class NodeSilent(DaemonsError):
    """A node does not answer; the message says why."""


def _why(answer: Answer) -> str:
    return answer.why if isinstance(answer, Refusal) else "its node answers another question; versions differ"


def _end(source: LogSource, before: Position) -> Position:
    """Return the position after the lines of ``source``."""
    if not source.lines:
        return before
    return Position(source.lines[-1].token, source.lines[-1].number)
