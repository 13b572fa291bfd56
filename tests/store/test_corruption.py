"""Corrupt records: no verb crashes, and no daemon is started while its entry is corrupt."""

import dataclasses
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Epoch, Token
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, Outcome
from celery_daemons.errors import LeaseLost
from celery_daemons.store import assignments, book, lease, queries, specs
from celery_daemons.store.codec import decode_or_none
from tests.store.driver import ARGUMENTS, I1, I2, N1, TAIL, TTL_MS, StoreDriver, row, running

X = DaemonName("x")
TOKEN = Token(1795443778122220)

CORRUPT = [
    "",
    "{",
    "null",
    "7",
    "-1e999",
    "NaN",
    '"text"',
    "[]",
    "{}",
    "[1, 2, 3]",
    '[["x"]]',
    "true",
    "\xff",
    "[" * 2000,
    '{"node": {}, "token": [], "status": 7, "launcher": null}',
    '{"node": true, "token": "1", "status": "running", "launcher": "tail"}',
    '{"node": "celery@n1", "token": 5, "status": "running", "launcher": "tail"}',
    '{"node": "celery@n1", "token": "x", "status": "running", "launcher": "tail"}',
    '{"node": "celery@n1", "token": "1", "status": "running", "launcher": "tail", "restarts": 1e999}',
    '{"node": "celery@n1", "token": "1", "status": "running", "launcher": "tail", "restarts": "many"}',
    '{"node": "celery@n1", "token": "1", "status": "running", "launcher": "tail", "extra": {"a": NaN}}',
    '{"desired": "running"}',
    '{"desired": "running", "launcher": "tail", "arguments": null, "version": []}',
    '{"desired": "running", "launcher": {}, "arguments": "x", "version": "1"}',
    '{"incarnation": null, "status": "up"}',
    '{"incarnation": "i1"}',
    '{"incarnation": 7, "status": []}',
    '{"incarnation": "i1", "status": "up", "weight": "heavy"}',
]

VERBS: dict[str, Callable[[StoreDriver, Epoch], Any]] = {
    "join": lambda c, e: c.run(lease.join(c.keys, N1, row(), ttl_ms=TTL_MS)),
    "join again": lambda c, e: c.run(lease.join(c.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1)),
    "beat": lambda c, e: c.run(lease.beat(c.keys, N1, I1, ttl_ms=TTL_MS)),
    "drain": lambda c, e: c.run(lease.drain(c.keys, N1)),
    "leave": lambda c, e: c.run(lease.leave(c.keys, N1, I1)),
    "want": lambda c, e: c.want("x", arguments="[[1], {}]"),
    "replace": lambda c, e: c.want("x", mode="replace", arguments="[[2], {}]"),
    "stop": lambda c, e: c.desire("x", "stop"),
    "restart": lambda c, e: c.desire("x", "restart"),
    "assign": lambda c, e: c.assign(e, "x"),
    "recall": lambda c, e: c.recall(e, "x"),
    "park": lambda c, e: c.run(book.park(c.keys, e, [(X, "why")])),
    "claim": lambda c, e: c.run(book.claim(c.keys, N1, I1, [runs.Assignment(X, TOKEN)])),
    "report": lambda c, e: c.run(
        book.report(c.keys, N1, I1, [runs.Report(name=X, token=TOKEN, status=DaemonStatus.RUNNING, pid=1, restarts=0)])
    ),
    "release": lambda c, e: c.release("x", TOKEN, Outcome.FINISHED),
    "held": lambda c, e: c.run(assignments.page(c.keys, N1)),
    "locate": lambda c, e: c.lookups.locate(X),
    "locate many": lambda c, e: c.lookups.locate_many([X]),
    "nodes": lambda c, e: c.lookups.nodes(),
    "gone": lambda c, e: queries.gone(c.store),
    "bury": lambda c, e: c.run(lease.forget_queues(c.keys, e, N1)),
    "records": lambda c, e: list(c.lookups.list()),
    "overview": lambda c, e: c.run(queries.overview(c.keys)),
    "reassert": lambda c, e: c.reassert([running("x", TOKEN)]),
    "sweep": lambda c, e: c.client.zrem(c.keys.leases, N1) and c.sweep(e),
    "forget": lambda c, e: c.forget("x"),
}


@pytest.fixture
def epoch(cluster: StoreDriver) -> Epoch:
    return cluster.lead()


GOOD_SPEC = msgspec.json.encode(SpecRow(launcher=TAIL, arguments=ARGUMENTS, desired=Desired.RUNNING, version="1"))
GOOD_ENTRY = msgspec.json.encode(
    {"status": "running", "token": str(TOKEN), "launcher": TAIL, "node": N1, "incarnation": I1, "version": "1"}
)


def break_records(
    cluster: StoreDriver, *, nodes: str | None = None, specs: str | None = None, entries: str | None = None
) -> None:
    """Write a cluster with the given corrupt records; the other records are valid."""
    keys = cluster.keys
    pipe = cluster.client.pipeline(transaction=False)
    pipe.hset(keys.cluster, mapping={"layout": "1", "created_ms": "1795443778074"})
    pipe.hset(keys.nodes, N1, msgspec.json.encode(row()) if nodes is None else nodes)
    pipe.zadd(keys.leases, {N1: cluster.now_ms() + TTL_MS})
    pipe.set(keys.generation(N1), 1)
    pipe.hset(keys.specs, "x", GOOD_SPEC if specs is None else specs)
    pipe.hset(keys.book, "x", GOOD_ENTRY if entries is None else entries)
    pipe.sadd(keys.held(N1), "x")
    pipe.hset(keys.gone, N1, nodes or "{}")
    pipe.execute()


def tidy(cluster: StoreDriver, epoch: Epoch) -> None:
    """Sweep the node, so that no key is left without an owner."""
    cluster.end_lease()
    cluster.sweep(epoch)


@pytest.mark.parametrize("corrupt", CORRUPT, ids=lambda text: text[:30] or "nothing")
def test_no_verb_crashes_on_a_corrupt_record(cluster: StoreDriver, epoch: Epoch, corrupt: str) -> None:
    for where in ("nodes", "specs", "entries", "everything"):
        for verb in VERBS.values():
            broken = {key: corrupt if where in (key, "everything") else None for key in ("nodes", "specs", "entries")}
            break_records(cluster, **broken)
            try:
                verb(cluster, epoch)
            except LeaseLost:
                # A node with a corrupt record counts as fenced, which is the safe answer.
                assert where in ("nodes", "everything")
    tidy(cluster, epoch)


def test_a_daemon_with_a_corrupt_entry_is_neither_assigned_nor_parked(cluster: StoreDriver, epoch: Epoch) -> None:
    """The entry may be that of a running daemon."""
    break_records(cluster, entries="{corrupt")

    dispatch = cluster.assign(epoch, "x")

    assert isinstance(dispatch, book.Dispatch)
    assert dispatch.tokens == (0,)
    assert cluster.run(book.park(cluster.keys, epoch, [(X, "why")])) == 0
    assert cluster.client.hget(cluster.keys.book, "x") == b"{corrupt"


def test_a_node_sees_a_corrupt_entry_and_can_release_the_daemon(cluster: StoreDriver, epoch: Epoch) -> None:
    break_records(cluster, entries="{corrupt")

    assert cluster.run(assignments.page(cluster.keys, N1)).rows == {"x": None}
    assert not cluster.release("x", TOKEN)
    assert cluster.held() == set()


def test_reasserting_repairs_a_corrupt_entry(cluster: StoreDriver, epoch: Epoch) -> None:
    break_records(cluster, entries="{corrupt")

    assert cluster.reassert([running("x", TOKEN)])[1] == [True]
    assert cluster.entry("x")["token"] == str(TOKEN)


def test_recording_a_spec_again_repairs_a_corrupt_spec(cluster: StoreDriver, epoch: Epoch) -> None:
    break_records(cluster, specs="{corrupt")

    assert cluster.want("x") == ["new"]
    assert cluster.spec("x")["desired"] == "running"


def test_reasserting_repairs_a_corrupt_node_record(cluster: StoreDriver, epoch: Epoch) -> None:
    break_records(cluster, nodes="{corrupt")

    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).verdict == "data_lost"
    assert cluster.reassert([running("x", TOKEN)]) is not None
    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).verdict == "ok"


def test_a_node_name_with_a_corrupt_record_is_taken_while_its_lease_runs(cluster: StoreDriver, epoch: Epoch) -> None:
    break_records(cluster, nodes="{corrupt")

    answer = cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))

    assert isinstance(answer, lease.Taken)


def test_changes_by_an_older_version_keep_fields_of_a_newer_version(cluster: StoreDriver, epoch: Epoch) -> None:
    """Two versions with the same layout may run at the same time."""
    break_records(cluster)
    for key in (cluster.keys.book, cluster.keys.specs):
        record = msgspec.json.decode(cluster.client.hget(key, "x"))
        cluster.client.hset(key, "x", msgspec.json.encode({**record, "colour": "red", "size": 7, "hot": True}))

    cluster.report("x", TOKEN)
    cluster.desire("x", "stop")

    for record in (cluster.entry("x"), cluster.spec("x")):
        assert (record["colour"], record["size"], record["hot"]) == ("red", 7, True)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.sampled_from(["", "x", "7", str(TOKEN), "up", "running"])
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["node"]), scalars, max_size=1)
KINDS: list[tuple[type[Any], str]] = [(SpecRow, "SPEC"), (BookRow, "ENTRY"), (NodeRow, "NODE")]
GOOD: dict[type[Any], dict[str, Any]] = {
    SpecRow: {"launcher": "tail", "arguments": ARGUMENTS, "desired": "running", "version": "1"},
    BookRow: {"status": "running", "token": str(TOKEN), "launcher": "tail", "node": N1, "incarnation": I1, "pid": 7},
    NodeRow: msgspec.to_builtins(row()),
}


@given(kind=st.sampled_from(KINDS), data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_python_and_lua_agree_on_what_is_a_record(
    cluster: StoreDriver, kind: tuple[type[Any], str], data: st.DataObject
) -> None:
    """If only one side took a value for a record, each side would wait for the other forever."""
    record_type, shape = kind
    fields = st.sampled_from([field.name for field in dataclasses.fields(record_type)])
    changed, gone = st.dictionaries(fields, values, max_size=3), st.sets(fields, max_size=1)
    record = {**GOOD[record_type], **data.draw(changed)}
    for field in data.draw(gone):
        record.pop(field, None)
    raw = msgspec.json.encode(record)

    in_python = decode_or_none(record_type, raw) is not None

    assert (cluster.client.eval(probe(shape), 0, raw) == 1) == in_python, record


def probe(shape: str) -> str:
    """Return Lua that checks whether its argument is a record of this shape."""
    shared = (files("celery_daemons.store") / "lua" / "_shared.lua").read_text("utf-8")
    return f"{shared}\nreturn read(ARGV[1], {shape}) and 1 or 0"


def test_a_scan_error_with_invalid_characters_is_recorded(cluster: StoreDriver, epoch: Epoch) -> None:
    assert cluster.run(specs.scanned(cluster.keys, epoch, TAIL, listed=0, took_ms=1, error="\udcff no"))
