"""Batches of 1,000 daemons, unusual names, and exact tokens."""

import json
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.store import assignments, book, lease, queries, specs
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH
from tests.conftest import NewServer
from tests.store.driver import ARGUMENTS, I1, N1, TAIL, TTL_MS, StoreDriver, names, row, running

LONG = "x" * 200
ODD = ["a/b:c@d+e", "-", "._-:@/+", "0", "null", "true", "1e5", "{ns}"[1:3], LONG, "daemons", "a:daemons"]

#: Seconds. A script call blocks every other client; this bound is generous for a busy machine and for fakeredis.
LONGEST = 5.0


def whole(cluster: StoreDriver, node: NodeName) -> dict[DaemonName, BookRow | None]:
    """Read all pages of a node's daemons."""
    page = cluster.run(assignments.page(cluster.keys, node))
    rows = dict(page.rows)
    while page.cursor != "0":
        page = cluster.run(assignments.page(cluster.keys, node, page.cursor))
        rows.update(page.rows)
    return rows


def test_every_verb_takes_a_thousand_daemons_at_once(cluster: StoreDriver) -> None:
    wanted = names(f"batch.{number}-{'y' * 180}" for number in range(BATCH))
    keys = cluster.keys
    cluster.join()
    epoch = cluster.lead()
    began = time.monotonic()

    items = [(name, TAIL, ARGUMENTS) for name in wanted]
    assert cluster.run(specs.record(keys, items, mode="spawn")) == ["new"] * BATCH
    assert cluster.run(book.park(keys, epoch, [(name, "no node is up") for name in wanted])) == BATCH
    dispatch = cluster.run(book.assign(keys, epoch, N1, I1, [(name, "test") for name in wanted]))
    assert len(set(dispatch.tokens)) == BATCH
    assert list(dispatch.tokens) == sorted(dispatch.tokens)
    placed = [runs.Assignment(*item) for item in zip(wanted, dispatch.tokens, strict=True)]
    claims = cluster.run(book.claim(keys, N1, I1, placed))
    assert [claim.token for claim in claims] == list(dispatch.tokens)
    reports = [
        runs.Report(name=name, token=token, status=DaemonStatus.RUNNING, pid=1, restarts=0) for name, token in placed
    ]
    assert cluster.run(book.report(keys, N1, I1, reports)) == [True] * BATCH
    assert whole(cluster, N1).keys() == set(wanted)
    entries = queries.entries(cluster.store, wanted)
    assert [entry.token for entry in entries] == list(dispatch.tokens)
    reasserted = [
        running(name, token, version=claim.version) for (name, token), claim in zip(placed, claims, strict=True)
    ]
    assert cluster.reassert(reasserted)[1] == [True] * BATCH
    recalled = cluster.run(book.recall(keys, epoch, N1, [(name, "test") for name in wanted]))
    assert recalled.tokens == dispatch.tokens
    half = [
        runs.Release(name=name, token=token, outcome=Outcome.STOPPED, restarts=0)
        for name, token in placed[: BATCH // 2]
    ]
    assert cluster.run(book.release(keys, N1, half)) == [True] * (BATCH // 2)
    cluster.end_lease()
    assert len(cluster.sweep(epoch).names) == BATCH // 2
    assert cluster.run(specs.forget(keys, wanted, cause="test")) == BATCH

    assert cluster.client.hlen(keys.book) == cluster.client.hlen(keys.specs) == 0
    assert time.monotonic() - began < 12 * LONGEST


def test_an_entry_in_the_journal_holds_a_whole_batch(cluster: StoreDriver) -> None:
    wanted = [f"d{number}" for number in range(BATCH)]

    cluster.want(*wanted)

    assert [item[0] for item in cluster.last().items] == wanted


def test_daemons_may_have_any_valid_name(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started(*ODD)

    assert cluster.held() == set(ODD)
    entries = queries.entries(cluster.store, names(ODD))
    assert [entry.token for entry in entries] == list(tokens.values())
    assert {record.name for record in cluster.lookups.list()} == set(ODD)
    assert cluster.recall(epoch, *ODD).tokens == tuple(tokens.values())
    for name, token in tokens.items():
        assert cluster.release(name, token)
    assert cluster.forget(*ODD) == len(ODD)
    assert cluster.held() == set()


def test_nodes_may_have_any_valid_name(cluster: StoreDriver) -> None:
    nodes = [NodeName(name) for name in ("a/b:c@d+e", "n:daemons", "n", "n:generation", LONG)]
    epoch = cluster.lead()
    for number, node in enumerate(nodes):
        cluster.join(node)
        cluster.want(f"d{number}")
        cluster.assign(epoch, f"d{number}", node=node)

    assert [cluster.held(node) for node in nodes] == [{f"d{number}"} for number in range(len(nodes))]
    assert {node.name for node in cluster.lookups.nodes()} == set(nodes)
    for node in nodes:
        cluster.end_lease(node)
        assert len(cluster.sweep(epoch, node).names) == 1
    assert cluster.lookups.nodes() == []


def test_arguments_are_returned_unchanged(cluster: StoreDriver) -> None:
    arguments = '[["\\u0000", "ä€😀", "\\\\", "\\"", "</script>", 1e300, null], {"k": "v"}]'
    cluster.join()
    cluster.want("x", arguments=arguments)
    dispatch = cluster.assign(cluster.lead(), "x")
    assert isinstance(dispatch, book.Dispatch)

    assert cluster.claim("x", dispatch.tokens[0]).arguments == arguments


@given(token=st.integers(10**15, 2**53 - 2))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_token_is_ever_rounded(cluster: StoreDriver, token: int) -> None:
    """Lua numbers hold a token exactly, but printing one with fourteen digits would round it."""
    name = DaemonName("x")
    cluster.lose_data()

    cluster.reassert([running(name, token)])
    assert cluster.entry(name)["token"] == str(token)
    assert cluster.run(assignments.page(cluster.keys, N1)).rows[name].token == token
    newer = cluster.claim(name, token).token

    assert newer > token
    assert cluster.clock() == newer
    assert cluster.reassert([running(name, newer - 1)])[1] == [False]


def test_tokens_epochs_and_versions_only_grow(cluster: StoreDriver) -> None:
    cluster.join()
    issued: list[int] = []
    for number in range(20):
        epoch = cluster.depose()
        cluster.want(f"d{number}")
        version = int(cluster.spec(f"d{number}")["version"])
        dispatch = cluster.assign(epoch, f"d{number}")
        assert isinstance(dispatch, book.Dispatch)
        issued += [epoch, version, dispatch.tokens[0]]

    assert issued == sorted(set(issued))
    assert cluster.clock() == issued[-1]


def test_tokens_grow_across_a_loss_of_all_data(cluster: StoreDriver) -> None:
    last = 0
    for _ in range(5):
        epoch, tokens = cluster.started("x")
        assert tokens["x"] > epoch > last
        last = cluster.clock()
        cluster.lose_data()


def test_a_corrupt_counter_does_not_stop_tokens(cluster: StoreDriver) -> None:
    for counter in ("", "x", "inf", "nan", "-1", "1e400", "99999999999999999999999"):
        cluster.client.set(cluster.keys.clock, counter)

        assert 10**15 < cluster.depose() < 2**53
    cluster.client.delete(cluster.keys.clock)
    assert cluster.run(lease.join(cluster.keys, N1, row(), ttl_ms=TTL_MS)).generation > 10**15


def test_the_daemons_of_a_node_are_read_in_pages(cluster: StoreDriver) -> None:
    cluster.join()
    epoch = cluster.lead()
    wanted = names(f"many.{number}" for number in range(3 * BATCH))
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        cluster.run(specs.record(cluster.keys, [(name, TAIL, ARGUMENTS) for name in batch], mode="spawn"))
        cluster.run(book.assign(cluster.keys, epoch, N1, I1, [(name, "test") for name in batch]))

    first = cluster.run(assignments.page(cluster.keys, N1))

    assert first.cursor != "0"
    assert len(first.rows) < 2 * BATCH
    assert whole(cluster, N1).keys() == set(wanted)


def test_a_compact_set_larger_than_the_limit_of_unpack_is_read(new_server: NewServer, namespace: str) -> None:
    """Redis keeps a set of numbers compact up to a configured size, and returns such a set as one page."""
    cluster = StoreDriver(Store(new_server("set-max-intset-entries 10000").url, Keys(namespace)))
    cluster.join()
    epoch = cluster.lead()
    wanted = [str(number) for number in range(9000)]
    for start in range(0, len(wanted), BATCH):
        cluster.want(*wanted[start : start + BATCH])
        cluster.assign(epoch, *wanted[start : start + BATCH])

    assert whole(cluster, N1).keys() == set(wanted)


def test_claims_of_large_arguments_are_answered_a_part_at_a_time(cluster: StoreDriver) -> None:
    """One reply of a thousand daemons with 1 MiB each would be a gigabyte."""
    # Given twelve daemons with arguments of 1 MB each
    cluster.join()
    epoch = cluster.lead()
    wanted = [f"big.{number}" for number in range(12)]
    for name in wanted:
        cluster.want(name, arguments=json.dumps([["x" * 1_000_000], {}]))
    dispatch = cluster.assign(epoch, *wanted)
    assert isinstance(dispatch, book.Dispatch)
    items = [runs.Assignment(DaemonName(name), token) for name, token in zip(wanted, dispatch.tokens, strict=True)]

    # When all are claimed, then the first eight are answered, and the rest are as they were
    results = cluster.run(book.claim(cluster.keys, N1, I1, items, server=""))
    assert [result.token for result in results] == list(dispatch.tokens[:8])
    assert [cluster.entry(name)["status"] for name in wanted] == 8 * ["starting"] + 4 * ["assigned"]

    # When the rest are claimed again, then they are answered
    rest = cluster.run(book.claim(cluster.keys, N1, I1, items[8:], server=""))
    assert [result.token for result in rest] == list(dispatch.tokens[8:])
