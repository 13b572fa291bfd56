"""The replica: following the journal gives the same copy as reading everything again."""

import sys

import pytest

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.store import book, journal
from celery_daemons.store.replica import Replica
from tests.store.driver import I2, N1, N2, StoreDriver, running

X = DaemonName("x")


class Follower:
    """A replica that follows the journal, and a comparison with a new replica."""

    def __init__(self, cluster: StoreDriver, *, with_specs: bool) -> None:
        self._cluster = cluster
        self._with_specs = with_specs
        self.replica = self.fresh()

    def fresh(self) -> Replica:
        """Return a replica that has just read everything."""
        replica = Replica(self._cluster.store, with_specs=self._with_specs)
        replica.load()
        return replica

    def check(self) -> None:
        """Follow the journal to its end without a reload, and compare with a new replica."""
        read = 0
        while (changes := self.replica.follow(block_ms=0)).entries:
            assert not changes.everything
            read += 1
        fresh = self.fresh()
        assert read > 0
        assert self.replica.book == fresh.book
        assert self.replica.specs == fresh.specs
        assert self.replica.nodes == fresh.nodes
        assert self.replica.corrupt == fresh.corrupt
        assert self.replica.counts == fresh.counts


@pytest.fixture(params=[True, False])
def follower(request: pytest.FixtureRequest, cluster: StoreDriver) -> Follower:
    """Return a follower with specs, as in the monitor, or without, as in clients."""
    return Follower(cluster, with_specs=request.param)


def test_a_replica_follows_every_change_of_a_daemon(cluster: StoreDriver, follower: Follower) -> None:
    epoch = cluster.lead()
    cluster.join()
    cluster.want("x", "y", "z")
    follower.check()
    cluster.run(book.park(cluster.keys, epoch, [(X, "no node fits")]))
    follower.check()
    dispatch = cluster.assign(epoch, "x", "y", "z")
    assert isinstance(dispatch, book.Dispatch)
    tokens = dict(zip("xyz", dispatch.tokens, strict=True))
    follower.check()
    for name, token in tokens.items():
        cluster.claim(name, token)
    follower.check()
    for name, token in tokens.items():
        cluster.report(name, token)
    follower.check()
    for action in ("stop", "start", "restart", "move"):
        cluster.desire("x", action)
        follower.check()
    cluster.recall(epoch, "x")
    follower.check()
    cluster.release("x", tokens["x"])
    follower.check()
    cluster.release("y", tokens["y"], Outcome.FINISHED)
    follower.check()
    cluster.forget("y", "z")
    follower.check()
    cluster.release("z", tokens["z"])
    follower.check()


def test_a_replica_follows_changes_of_many_daemons(cluster: StoreDriver, follower: Follower) -> None:
    epoch, tokens = cluster.started("x", "y")
    follower.check()
    cluster.want("x", mode="replace", arguments="[[1], {}]")
    follower.check()
    higher = tokens["x"] + 1
    cluster.reassert([running("x", higher), running("lost", higher)], node=N2, incarnation=I2)
    follower.check()
    cluster.end_lease()
    cluster.sweep(epoch)
    follower.check()


@pytest.mark.parametrize("key", ["specs", "book"])
def test_a_repaired_record_is_read_after_any_event_of_its_daemon(cluster: StoreDriver, key: str) -> None:
    epoch, _ = cluster.started("x")
    whole = getattr(cluster.keys, key)
    sound = cluster.client.hget(whole, "x")
    cluster.client.hset(whole, "x", "{")
    follower = Follower(cluster, with_specs=True)
    assert follower.replica.corrupt == {X}

    cluster.client.hset(whole, "x", sound)
    if key == "book":
        cluster.desire("x", "restart")
    else:
        cluster.recall(epoch, "x")

    follower.check()


def test_a_replica_follows_a_burst_of_entries(cluster: StoreDriver, follower: Follower) -> None:
    for number in range(45):
        cluster.join(NodeName(f"n{number}"))
        cluster.want(f"d{number}")

    follower.check()


def test_a_replica_that_falls_behind_reloads_everything(cluster: StoreDriver, follower: Follower) -> None:
    cluster.started("x")
    follower.check()
    cluster.client.xtrim(cluster.keys.journal, maxlen=0, approximate=False)
    cluster.client.hset(cluster.keys.book, "y", cluster.client.hget(cluster.keys.book, "x"))
    cluster.run(journal.note(cluster.keys, "test", node=N1))

    changes = follower.replica.follow(block_ms=0)

    assert changes.everything
    assert follower.replica.book.keys() == {"x", "y"}


def test_texts_of_a_single_record_are_freed_with_the_record(cluster: StoreDriver, follower: Follower) -> None:
    """Some releases of Python never free interned texts: a replica in a long-lived process would grow forever."""
    cluster.started("x")
    follower.check()

    again = "".join(list(follower.replica.book[X].version))

    assert sys.intern(again) is again
