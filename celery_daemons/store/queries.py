"""Reading the address book: look-ups, nodes and listings, joined with the leases that vouch for them."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from celery_daemons.domain.names import DaemonName, Epoch, NodeName
from celery_daemons.domain.records import Address, BookRow, DaemonRecord, Leader, Node, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH, ScriptCall, text

T = TypeVar("T")


def address(name: DaemonName, row: BookRow | None, node: NodeRow | None) -> Address | None:
    """Join a daemon's entry with its node's record; ``None`` unless that very incarnation vouches for it."""
    if row is None or node is None or row.node is None or row.incarnation != node.incarnation:
        return None
    return Address(
        name=name,
        launcher=row.launcher,
        node=row.node,
        incarnation=node.incarnation,
        token=row.token,
        status=row.status,
        queue=node.queue,
        host=node.host,
        pid=row.pid,
        started_at=row.started_ms / 1000,
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster in numbers; ``leases`` are the milliseconds left, negative for what has ended.

    ``age_ms`` is how long ago the cluster's data was created, ``None`` if there is none; ``first_beat_age_ms`` how long ago the
    first node was heard again after a time in which no lease ran, ``None`` if there was no such time; ``server`` is the
    run id of the server that a monitor last settled with, empty for none; ``paused`` while nothing shall be rebalanced.
    """

    created_ms: str
    age_ms: int | None
    first_beat_age_ms: int | None
    specs: int
    entries: int
    server: str
    paused: bool
    leases: dict[NodeName, int]


def overview(keys: Keys) -> ScriptCall[Overview]:
    """The state of the cluster, at a cost that does not depend on the number of daemons."""

    def decode(reply: Any) -> Overview:
        now, created, heard = int(reply[0]), text(reply[1]), text(reply[5])
        ends = zip(reply[7::2], reply[8::2], strict=True)
        return Overview(
            created_ms=created,
            age_ms=now - int(created) if created else None,
            first_beat_age_ms=now - int(heard) if heard else None,
            specs=int(reply[2]),
            entries=int(reply[3]),
            server=text(reply[4]),
            paused=bool(reply[6]),
            leases={NodeName(text(name)): int(float(end)) - now for name, end in ends},
        )

    return ScriptCall("overview", (keys.cluster, keys.leases, keys.specs, keys.book), (), decode)


def trace(store: Store, name: DaemonName) -> str | None:
    """The traceback of a daemon's last failure."""
    raw = store.read(lambda client: client.hget(store.keys.traces, name))
    return text(raw) if raw else None


def leader(store: Store) -> Leader | None:
    """Who leads now; ``None`` for nobody, also while the value is corrupt: it counts as free."""
    raw = store.read(lambda client: client.get(store.keys.monitor))
    try:
        held = msgspec.json.decode(raw or b"null", type=dict[str, str] | None)
        return Leader(node=NodeName(held["node"]), epoch=Epoch(int(held["epoch"]))) if held else None
    except (msgspec.MsgspecError, KeyError, ValueError):
        return None


def scans(store: Store, kind: type[T]) -> dict[str, T]:
    """How each launcher's recovery scanner last went, as ``kind``."""
    raw = store.read(lambda client: client.hgetall(store.keys.scans))
    return {text(launcher): msgspec.json.decode(record, type=kind) for launcher, record in raw.items()}


NodeRows = dict[NodeName, tuple[NodeRow, int]]


def _ask_nodes(pipe: Any, keys: Keys) -> None:
    pipe.hgetall(keys.nodes)
    pipe.zrange(keys.leases, 0, -1, withscores=True)
    pipe.time()


def _read_nodes(rows: Any, leases: Any, time: tuple[int, int]) -> NodeRows:
    now_ms = time[0] * 1000 + time[1] // 1000
    ends = {text(node): int(end) for node, end in leases}
    found: NodeRows = {}
    for raw_name, raw in rows.items():
        name, row = text(raw_name), decode_or_none(NodeRow, raw)
        if row is not None:
            found[NodeName(name)] = (row, ends.get(name, 0) - now_ms)
    return found


def node_rows(store: Store) -> NodeRows:
    """Every registered node's record with what is left of its lease in ms, in one round trip."""

    def query(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        _ask_nodes(pipe, store.keys)
        return pipe.execute()

    return _read_nodes(*store.read(query))


def entries_and_nodes(store: Store, names: Sequence[DaemonName]) -> tuple[list[BookRow | None], NodeRows]:
    """The entries of up to 1,000 daemons beside all nodes and leases, in one round trip."""

    def query(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        pipe.hmget(store.keys.book, names)
        _ask_nodes(pipe, store.keys)
        return pipe.execute()

    found, *nodes = store.read(query)
    return [decode_or_none(BookRow, raw) for raw in found], _read_nodes(*nodes)


def raw(store: Store, key: str, names: Sequence[DaemonName]) -> list[bytes | None]:
    """Records of up to 1,000 daemons as they stand in one of the hashes."""
    found: list[bytes | None] = store.read(lambda client: client.hmget(key, names))
    return found


def entries(store: Store, names: Sequence[DaemonName]) -> list[BookRow | None]:
    """The entries of up to 1,000 daemons alone."""
    return [decode_or_none(BookRow, entry) for entry in raw(store, store.keys.book, names)]


def nodes(store: Store) -> list[Node]:
    """Every registered node with how many daemons it holds."""
    rows = node_rows(store)
    names = list(rows)

    def query(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.scard(store.keys.held(name))
        return pipe.execute()

    counts = store.read(query) if names else []
    return sorted(
        (node(name, *rows[name], daemons=count) for name, count in zip(names, counts, strict=True)),
        key=lambda one: one.name,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The queues of a node that is gone since ``at_ms``."""

    at_ms: int
    queue: str
    spawn_queue: str


def gone(store: Store) -> dict[NodeName, Gone]:
    """Nodes that are gone and whose queues may still be in the broker."""
    raw = store.read(lambda client: client.hgetall(store.keys.gone))
    found = {}
    for name, record in raw.items():
        # One that cannot be read says of no queue that it may be removed.
        with contextlib.suppress(msgspec.MsgspecError):
            found[NodeName(text(name))] = msgspec.json.decode(record, type=Gone)
    return found


def node(name: NodeName, row: NodeRow, lease_ms: int, *, daemons: int) -> Node:
    """A node's public record."""
    return Node(
        name=name,
        incarnation=row.incarnation,
        status=row.status if lease_ms > 0 else NodeStatus.LOST,
        queue=row.queue,
        host=row.host,
        pid=row.pid,
        weight=row.weight,
        labels=tuple(sorted(row.label_set)),
        launchers=tuple(sorted(row.launcher_set)),
        daemons=daemons,
        started_at=row.started_ms / 1000,
        lease_ms=max(0, lease_ms),
    )


def scan_specs(store: Store, cursor: int) -> tuple[int, dict[DaemonName, SpecRow | None]]:
    """One page of the specs, and the cursor of the next (0 after the last); ``None`` for a record that is corrupt."""
    cursor, page = store.read(lambda client: client.hscan(store.keys.specs, cursor, count=BATCH))
    return cursor, {DaemonName(text(name)): decode_or_none(SpecRow, raw) for name, raw in page.items()}


def rows(store: Store, names: Sequence[DaemonName]) -> list[tuple[SpecRow | None, BookRow | None]]:
    """Spec and entry of up to 1,000 daemons, in one round trip."""
    if not names:
        return []

    def query(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        pipe.hmget(store.keys.specs, names)
        pipe.hmget(store.keys.book, names)
        return pipe.execute()

    specs, entries = store.read(query)
    return [
        (decode_or_none(SpecRow, spec), decode_or_none(BookRow, entry))
        for spec, entry in zip(specs, entries, strict=True)
    ]


def record(name: DaemonName, spec: SpecRow, row: BookRow | None, node: NodeRow | None) -> DaemonRecord:
    """A daemon's public record from what Redis holds of it."""
    where = address(name, row, node)
    if where is not None:
        status = where.status
    elif spec.desired is Desired.STOPPED:
        status = DaemonStatus.STOPPED
    elif row is not None and row.node is None and row.status is DaemonStatus.UNPLACEABLE:
        status = row.status
    else:
        status = DaemonStatus.PENDING
    return DaemonRecord(
        name=name,
        launcher=spec.launcher,
        status=status,
        node=where.node if where else None,
        incarnation=where.incarnation if where else None,
        token=where.token if where else None,
        queue=where.queue if where else None,
        host=where.host if where else None,
        pid=where.pid if where else None,
        started_at=where.started_at if where else None,
        restarts=row.restarts if row else 0,
        error=row.error if row else None,
        desired=spec.desired,
    )


def records(store: Store) -> Iterator[DaemonRecord]:
    """Every daemon that is wanted, a page at a time; what changes meanwhile may be seen before or after the change."""
    live = {name: row for name, (row, lease_ms) in node_rows(store).items() if lease_ms > 0}
    cursor, seen = 0, set[DaemonName]()
    while True:
        cursor, page = scan_specs(store, cursor)
        names = [name for name, spec in page.items() if spec is not None and name not in seen]
        seen.update(names)
        for start in range(0, len(names), BATCH):
            chunk = names[start : start + BATCH]
            for name, (spec, row) in zip(chunk, rows(store, chunk), strict=True):
                if spec is not None:
                    yield record(name, spec, row, live.get(row.node) if row and row.node else None)
        if cursor == 0:
            return
