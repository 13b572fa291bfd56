"""A driver for tests of the store: short forms of the verbs, and readers for what Redis holds."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from celery_daemons.client.cluster_io import BlockingIO
from celery_daemons.client.lookups import AsyncLookups, Lookups
from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import JournalEntry, NodeRow
from celery_daemons.domain.states import DaemonStatus, NodeStatus, Outcome
from celery_daemons.store import book, journal, lease, queries, specs
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from celery_daemons.store.server_pin import server_id

#: Longer than any test. A test that needs the end of a lease ends the lease itself.
TTL_MS = 60_000

N1, N2 = NodeName("celery@n1"), NodeName("celery@n2")
I1, I2 = Incarnation("i1"), Incarnation("i2")
TAIL = LauncherName("tail")
ARGUMENTS = "[[], {}]"


def row(incarnation: Incarnation = I1, **fields: Any) -> NodeRow:
    """Return a node's record."""
    given: dict[str, Any] = {
        "status": NodeStatus.UP,
        "queue": "q1",
        "spawn_queue": "s1",
        "host": "machine",
        "pid": 7,
        "weight": 1.5,
        "labels": "eu,gpu",
        "launchers": "poll,tail",
    }
    return NodeRow(incarnation=incarnation, **{**given, **fields})


def running(name: str, token: int, **fields: Any) -> runs.Running:
    """Return a daemon as its node reasserts it."""
    given: dict[str, Any] = {
        "launcher": TAIL,
        "arguments": ARGUMENTS,
        "version": "1",
        "status": DaemonStatus.RUNNING,
        "pid": 11,
        "restarts": 2,
    }
    return runs.Running(name=DaemonName(name), token=Token(token), **{**given, **fields})


def names(values: Iterable[str]) -> list[DaemonName]:
    """Return daemon names, without a check."""
    return [DaemonName(value) for value in values]


def lookups_of(store: Store) -> Lookups:
    """Return the look-ups of a store."""
    return Lookups(AsyncLookups(BlockingIO(store), vnodes=40))


class StoreDriver:
    """Run verbs on one namespace and read its contents."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: Keys = store.keys
        self.client: Any = store.client

    @property
    def lookups(self) -> Lookups:
        """Look-ups that remember no lease yet."""
        return lookups_of(self.store)

    def run(self, call: ScriptCall[Any]) -> Any:
        """Run any verb."""
        return self.store.run(call)

    # Verbs

    def join(self, node: NodeName = N1, incarnation: Incarnation = I1, **fields: Any) -> lease.Joined:
        """Join a node."""
        joined = self.run(lease.join(self.keys, node, row(incarnation, **fields), ttl_ms=TTL_MS))
        assert isinstance(joined, lease.Joined)
        return joined

    def lead(self, node: NodeName = N1) -> Epoch:
        """Elect a monitor and return its epoch."""
        epoch = self.run(lease.campaign(self.keys, node, I1, ttl_ms=TTL_MS))
        assert epoch is not None
        return Epoch(epoch)

    def confirm(self, epoch: Epoch, run_id: str) -> str:
        """Confirm the server under a run id, and return its id."""
        server = server_id(run_id, self.run(queries.overview(self.keys)).history)
        assert self.run(lease.confirm_server(self.keys, epoch, server))
        return server

    def depose(self) -> Epoch:
        """Elect another monitor and return its epoch."""
        self.client.delete(self.keys.monitor)
        return self.lead(N2)

    def want(self, *wanted: str, mode: specs.RecordMode = "spawn", arguments: str = ARGUMENTS) -> list[str]:
        """Record that daemons should run."""
        items = [(name, TAIL, arguments) for name in names(wanted)]
        return list(self.run(specs.record(self.keys, items, mode=mode)))

    def desire(self, name: str, action: Any) -> bool:
        """Stop, start, restart or move a daemon."""
        return bool(self.run(specs.desire(self.keys, DaemonName(name), action)))

    def forget(self, *forgotten: str) -> int:
        """Forget daemons."""
        return int(self.run(specs.forget(self.keys, names(forgotten), cause="test")))

    def assign(
        self, epoch: Epoch, *assigned: str, node: NodeName = N1, incarnation: Incarnation = I1
    ) -> book.Dispatch | book.NotAssigned:
        """Assign daemons to a node."""
        items = [(name, "test") for name in names(assigned)]
        dispatch: book.Dispatch | book.NotAssigned = self.run(book.assign(self.keys, epoch, node, incarnation, items))
        return dispatch

    def recall(self, epoch: Epoch, *recalled: str, node: NodeName = N1) -> book.Dispatch:
        """Recall daemons from a node."""
        dispatch: book.Dispatch = self.run(book.recall(self.keys, epoch, node, [(n, "test") for n in names(recalled)]))
        return dispatch

    def claim(self, name: str, token: int, *, node: NodeName = N1, incarnation: Incarnation = I1) -> runs.ClaimResult:
        """Claim one daemon for a node."""
        claims = self.run(book.claim(self.keys, node, incarnation, [runs.Assignment(DaemonName(name), Token(token))]))
        assert len(claims) == 1
        result: runs.ClaimResult = claims[0]
        return result

    def report(self, name: str, token: int, status: DaemonStatus = DaemonStatus.RUNNING, **fields: Any) -> bool:
        """Report one daemon from node 1."""
        given = {"pid": 11, "restarts": 0, **fields}
        report = runs.Report(name=DaemonName(name), token=Token(token), status=status, **given)
        return bool(self.run(book.report(self.keys, N1, I1, [report]))[0])

    def release(
        self, name: str, token: int, outcome: Outcome = Outcome.STOPPED, *, node: NodeName = N1, **fields: Any
    ) -> bool:
        """Release one daemon from a node."""
        given = {"restarts": 0, **fields}
        release = runs.Release(name=DaemonName(name), token=Token(token), outcome=outcome, **given)
        return bool(self.run(book.release(self.keys, node, [release]))[0])

    def sweep(self, epoch: Epoch, node: NodeName = N1, *, limit: int = 1000) -> book.Swept:
        """Sweep a node, as a monitor does whose clock agrees with Redis's."""
        end = int(self.client.zscore(self.keys.leases, node) or 0)
        ended_ms = end if end <= self.now_ms() else 0
        swept: book.Swept = self.run(book.sweep(self.keys, epoch, node, limit=limit, ended_ms=ended_ms))
        return swept

    def reassert(
        self, items: Sequence[runs.Running] = (), *, node: NodeName = N1, incarnation: Incarnation = I1
    ) -> Any:
        """Reassert what a node runs."""
        return self.run(book.reassert(self.keys, node, row(incarnation), items, ttl_ms=TTL_MS))

    # Situations

    def started(self, *wanted: str) -> tuple[Epoch, dict[str, Token]]:
        """Join node 1, elect a monitor and start daemons on node 1; return the epoch and the tokens."""
        self.join()
        epoch = self.lead()
        self.want(*wanted)
        dispatch = self.assign(epoch, *wanted)
        assert isinstance(dispatch, book.Dispatch)
        tokens = dict(zip(wanted, dispatch.tokens, strict=True))
        for name, token in tokens.items():
            assert self.claim(name, token).token == token
            assert self.report(name, token)
        return epoch, tokens

    def started_again(self, epoch: Epoch, name: str) -> Token:
        """Record a daemon and start it on node 1; return the token."""
        self.want(name)
        dispatch = self.assign(epoch, name)
        assert isinstance(dispatch, book.Dispatch)
        return self.claim(name, dispatch.tokens[0]).token

    def end_lease(self, node: NodeName = N1) -> None:
        """End the lease of a node."""
        self.client.zadd(self.keys.leases, {node: self.now_ms() - 1})

    def lose_data(self) -> None:
        """Delete all keys of the namespace; other tests use the same server."""
        for key in self.client.keys(f"{{{self.keys.namespace}}}:*"):
            self.client.delete(key)

    # Contents

    def now_ms(self) -> int:
        """Return the server's time in Unix milliseconds."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def lease_ms(self, node: NodeName = N1) -> int | None:
        """Return the milliseconds left of a node's lease."""
        end = self.client.zscore(self.keys.leases, node)
        return None if end is None else int(end) - self.now_ms()

    def entry(self, name: str) -> Any:
        """Return a daemon's entry in the book; its token is text."""
        return self._record(self.keys.book, name)

    def spec(self, name: str) -> Any:
        """Return a daemon's spec."""
        return self._record(self.keys.specs, name)

    def node(self, node: NodeName = N1) -> Any:
        """Return a node's record."""
        return self._record(self.keys.nodes, node)

    def _record(self, key: str, field: str) -> Any:
        raw = self.client.hget(key, field)
        return None if raw is None else msgspec.json.decode(raw)

    def held(self, node: NodeName = N1) -> set[str]:
        """Return the names of the daemons on a node."""
        return {name.decode() for name in self.client.smembers(self.keys.held(node))}

    def generation(self, node: NodeName = N1) -> int:
        """Return a node's generation, 0 if there is none."""
        return int(self.client.get(self.keys.generation(node)) or 0)

    def clock(self) -> Token:
        """Return the last token issued."""
        return Token(int(self.client.get(self.keys.clock)))

    def events(self) -> list[JournalEntry]:
        """Return the journal, oldest entry first."""
        return journal.newest(self.store, 1000)

    def last(self) -> JournalEntry:
        """Return the newest entry of the journal."""
        return self.events()[-1]

    def contents(self) -> dict[str, Any]:
        """Return everything in the namespace, for comparisons."""
        read = {
            b"hash": self.client.hgetall,
            b"set": self.client.smembers,
            b"string": self.client.get,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
            b"stream": self.client.xrange,
        }
        keys = self.client.keys(f"{{{self.keys.namespace}}}:*")
        return {key.decode(): read[self.client.type(key)](key) for key in keys}
