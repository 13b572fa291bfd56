"""Read the address book: look-ups, nodes and listings, joined with the leases that make an address valid."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from celery_daemons.domain.names import DaemonName, Epoch, NodeName
from celery_daemons.domain.records import Address, BookRow, DaemonRecord, Leader, Node, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.keys import Keys
from celery_daemons.store.query import Query, query
from celery_daemons.store.script import ScriptCall, text


def address(name: DaemonName, row: BookRow | None, node: NodeRow | None) -> Address | None:
    """Join a daemon's entry with the node's record; ``None`` unless both name the same incarnation."""
    if row is None or node is None or row.node is None or row.incarnation != node.incarnation:
        return None
    return Address(
        name=name,
        launcher=row.launcher,
        node=row.node,
        incarnation=node.incarnation,
        token=row.token,
        status=row.status,
        queue=node.queue or None,
        host=node.host,
        pid=row.pid,
        started_at=row.started_ms / 1000,
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster in numbers.

    ``age_ms`` is the age of the cluster's data, ``None`` if there is none. ``first_beat_age_ms`` is the time since the
    first heartbeat after a period in which no lease ran, ``None`` if there was no such period. ``server`` is the id of
    the server that a monitor last confirmed, empty for none; ``history`` is that of the server that answers. ``paused``
    says whether rebalancing is paused.
    ``leases`` has the milliseconds left of each node's lease, negative after its end, and ``lease_lengths`` the length
    of each. ``lost_lease_ms`` is the longest lease that a node may have that Redis has forgotten, 0 for none. ``led``
    says whether a monitor leads. ``counted`` is the number of specs by the counts. All ages, and ``now_ms``, are by
    Redis's clock.
    """

    now_ms: int
    created_ms: str
    age_ms: int | None
    first_beat_age_ms: int | None
    specs: int
    entries: int
    server: str
    history: str
    paused: bool
    leases: dict[NodeName, int]
    lease_lengths: dict[NodeName, int]
    lost_lease_ms: int
    led: bool
    counted: int

    @property
    def longest_lease_ms(self) -> int:
        """Return the longest lease of a registered node, or of a node that Redis has forgotten."""
        return max([self.lost_lease_ms, *self.lease_lengths.values()])


def overview(keys: Keys) -> ScriptCall[Overview]:
    """Return the overview of the cluster, in a time that does not depend on the number of daemons."""

    def decode(reply: Any) -> Overview:
        now, created, first_beat = int(reply[0]), text(reply[1]), text(reply[5])
        ends, lengths = zip(reply[12::2], reply[13::2], strict=True), zip(reply[9][::2], reply[9][1::2], strict=True)
        return Overview(
            now_ms=now,
            created_ms=created,
            age_ms=now - int(created) if created else None,
            first_beat_age_ms=now - int(first_beat) if first_beat else None,
            specs=int(reply[2]),
            entries=int(reply[3]),
            server=text(reply[4]),
            history=text(reply[10]),
            paused=bool(reply[6]),
            leases={NodeName(text(name)): int(float(end)) - now for name, end in ends},
            lease_lengths={NodeName(text(name)): int(float(length)) for name, length in lengths},
            lost_lease_ms=int(reply[7] or 0),
            led=bool(reply[8]),
            counted=int(reply[11]),
        )

    return ScriptCall(
        "overview",
        (keys.cluster, keys.leases, keys.specs, keys.book, keys.lease_lengths, keys.monitor, keys.counts),
        (),
        decode,
    )


@query
def trace(keys: Keys, name: DaemonName) -> Query[str | None]:
    """Return the traceback of a daemon's last failure, ``None`` if there is none."""
    return Query(lambda client: client.hget(keys.traces, name), lambda raw: text(raw) if raw else None)


@query
def leader(keys: Keys) -> Query[Leader | None]:
    """Return the current leader; ``None`` if no monitor leads or the value is corrupt, which counts as free."""
    return Query(lambda client: client.get(keys.monitor), decode_leader)


def decode_leader(raw: bytes | None) -> Leader | None:
    """Decode the record of a leader; ``None`` for an absent or corrupt record."""
    try:
        held = msgspec.json.decode(raw or b"null", type=dict[str, str] | None)
        return Leader(node=NodeName(held["node"]), epoch=Epoch(int(held["epoch"]))) if held else None
    except (msgspec.MsgspecError, KeyError, ValueError):
        return None


NodeRows = dict[NodeName, tuple[NodeRow, int]]


def _ask_nodes(pipe: Any, keys: Keys) -> None:
    pipe.hgetall(keys.nodes)
    pipe.zrange(keys.leases, 0, -1, withscores=True)
    pipe.time()


def _read_nodes(rows: Any, leases: Any, time: tuple[int, int]) -> NodeRows:
    return read_nodes(rows.items(), leases, time[0] * 1000 + time[1] // 1000)


def read_nodes(rows: Iterable[tuple[Any, Any]], leases: Iterable[tuple[Any, Any]], now_ms: int) -> NodeRows:
    """Decode pairs of node and record, and pairs of node and end of the lease in milliseconds."""
    ends = {text(node): int(float(end)) for node, end in leases}
    nodes: NodeRows = {}
    for raw_name, raw in rows:
        name, row = text(raw_name), decode_or_none(NodeRow, raw)
        if row is not None:
            nodes[NodeName(name)] = (row, ends.get(name, 0) - now_ms)
    return nodes


@query
def node_rows(keys: Keys) -> Query[NodeRows]:
    """Return the record of every registered node and the milliseconds left of the lease, in a single round trip."""

    def ask(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        _ask_nodes(pipe, keys)
        return pipe.execute()

    return Query(ask, lambda replies: _read_nodes(*replies))


@query
def entries_and_nodes(keys: Keys, names: Sequence[DaemonName]) -> Query[tuple[list[BookRow | None], NodeRows]]:
    """Return the entries of up to 1,000 daemons, and all nodes with leases, in a single round trip."""

    def ask(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        pipe.hmget(keys.book, names)
        _ask_nodes(pipe, keys)
        return pipe.execute()

    def decode(replies: Any) -> tuple[list[BookRow | None], NodeRows]:
        entries, *nodes = replies
        return [decode_or_none(BookRow, raw) for raw in entries], _read_nodes(*nodes)

    return Query(ask, decode)


@query
def raw(keys: Keys, key: str, names: Sequence[DaemonName]) -> Query[list[bytes | None]]:
    """Return the undecoded records of up to 1,000 daemons from the hash ``key``."""
    return Query(lambda client: client.hmget(key, names), list)


@query
def entries(keys: Keys, names: Sequence[DaemonName]) -> Query[list[BookRow | None]]:
    """Return the entries of up to 1,000 daemons."""
    return Query(
        lambda client: client.hmget(keys.book, names), lambda found: [decode_or_none(BookRow, raw) for raw in found]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The queues of a node that left or was lost at ``at_ms``, in Unix milliseconds."""

    at_ms: int
    queue: str
    spawn_queue: str


@query
def gone(keys: Keys) -> Query[dict[NodeName, Gone]]:
    """Return the departed nodes whose queues may still be in the broker."""

    def decode(raw: Any) -> dict[NodeName, Gone]:
        departed = {}
        for name, record in raw.items():
            # A record that cannot be read is skipped: no queue may be deleted because of a corrupt record.
            with contextlib.suppress(msgspec.MsgspecError):
                departed[NodeName(text(name))] = msgspec.json.decode(record, type=Gone)
        return departed

    return Query(lambda client: client.hgetall(keys.gone), decode)


def node(name: NodeName, row: NodeRow, lease_ms: int, *, daemons: int) -> Node:
    """Return the public record of a node."""
    return Node(
        name=name,
        incarnation=row.incarnation,
        status=row.status if lease_ms > 0 else NodeStatus.LOST,
        queue=row.queue or None,
        host=row.host,
        pid=row.pid,
        weight=row.weight,
        labels=tuple(sorted(row.label_set)),
        launchers=tuple(sorted(row.launcher_set)),
        daemons=daemons,
        started_at=row.started_ms / 1000,
        lease_ms=max(0, lease_ms),
        problem=row.problem or None,
        blocked=row.blocked_loops,
        warning=row.warning or None,
    )


@query
def rows(keys: Keys, names: Sequence[DaemonName]) -> Query[list[tuple[SpecRow | None, BookRow | None]]]:
    """Return the specs and entries of 1 to 1,000 daemons, in a single round trip."""

    def ask(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        pipe.hmget(keys.specs, names)
        pipe.hmget(keys.book, names)
        return pipe.execute()

    def decode(replies: Any) -> list[tuple[SpecRow | None, BookRow | None]]:
        return [
            (decode_or_none(SpecRow, spec), decode_or_none(BookRow, entry))
            for spec, entry in zip(*replies, strict=True)
        ]

    return Query(ask, decode)


def record(name: DaemonName, spec: SpecRow, row: BookRow | None, node: NodeRow | None) -> DaemonRecord:
    """Return the public record of a daemon."""
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
        blocked=node.blocked_loop(where.pid) if where and node else None,
    )
