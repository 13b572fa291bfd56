"""A namespace with another key layout is refused and not changed."""

from collections.abc import Callable
from typing import Any

import pytest

from celery_daemons.errors import LayoutMismatch
from celery_daemons.store import book, journal, lease, queries, specs
from celery_daemons.store.connection import Store
from tests.conftest import FLAVOURS
from tests.store.conftest import Connect
from tests.store.driver import ARGUMENTS, I1, N1, TAIL, TTL_MS, StoreDriver, lookups_of, names, row, running


def dump(cluster: StoreDriver) -> dict[bytes, bytes]:
    """Return the serialized value of every key of the namespace."""
    return {key: cluster.client.dump(key) for key in cluster.client.keys(f"{{{cluster.keys.namespace}}}:*")}


@pytest.fixture
def other_version(cluster: StoreDriver) -> dict[bytes, bytes]:
    """Prepare a running cluster with layout 9; return its contents."""
    cluster.started("x")
    cluster.client.hset(cluster.keys.cluster, "layout", "9")
    return dump(cluster)


X = names(["x"])
CALLS: dict[str, Callable[[Store], Any]] = {
    "join": lambda s: s.run(lease.join(s.keys, N1, row(), ttl_ms=TTL_MS)),
    "reassert": lambda s: s.run(book.reassert(s.keys, N1, row(), [running("x", "7")], ttl_ms=TTL_MS)),
    "campaign": lambda s: s.run(lease.campaign(s.keys, N1, I1, ttl_ms=TTL_MS)),
    "want": lambda s: s.run(specs.record(s.keys, [(X[0], TAIL, ARGUMENTS)], mode="replace")),
    "stop": lambda s: s.run(specs.desire(s.keys, X[0], "stop")),
    "forget": lambda s: s.run(specs.forget(s.keys, X, cause="test")),
    "note": lambda s: s.run(journal.note(s.keys, "test")),
    "locate": lambda s: queries.entries_and_nodes(s, X),
    "entry": lambda s: s.entry(X[0]),
    "nodes": lambda s: lookups_of(s).nodes(),
    "records": lambda s: list(lookups_of(s).list()),
    "check": lambda s: s.check(),
}


# Not for fakeredis: a store with a given client counts as checked.
@pytest.mark.parametrize("connect", FLAVOURS, indirect=True)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_of_a_new_client_with_another_layout_is_refused(
    cluster: StoreDriver, other_version: dict[bytes, bytes], connect: Connect, call: str
) -> None:
    client = connect(cluster.keys.namespace)

    with pytest.raises(LayoutMismatch, match="uses key layout v9, this version of celery_daemons supports v1"):
        CALLS[call](client)

    client.close()
    assert dump(cluster) == other_version


@pytest.mark.parametrize("call", ["join", "reassert"])
def test_the_scripts_refuse_a_node_with_another_layout(
    cluster: StoreDriver, other_version: dict[bytes, bytes], call: str
) -> None:
    """The layout may change between a client's check and its call."""
    with pytest.raises(LayoutMismatch, match="run versions with the same layout"):
        CALLS[call](cluster.store)

    assert dump(cluster) == other_version


def test_a_client_with_the_same_layout_is_accepted(cluster: StoreDriver, connect: Connect) -> None:
    cluster.started("x")
    client = connect(cluster.keys.namespace)

    client.check()

    assert len(lookups_of(client).nodes()) == 1
    client.close()
