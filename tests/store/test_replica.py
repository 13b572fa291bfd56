"""The copy in memory: whatever a verb changes, who follows the journal has it as who reads everything."""

import sys

import pytest

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.states import Outcome
from celery_daemons.store import book, journal
from celery_daemons.store.replica import Replica
from tests.store.driver import I2, N1, N2, StoreDriver, running

X = DaemonName("x")


class Follower:
    """A copy that follows, and one that is made anew to compare it with."""

    def __init__(self, cluster: StoreDriver, *, with_specs: bool) -> None:
        self._cluster = cluster
        self._with_specs = with_specs
        self.replica = self.fresh()

    def fresh(self) -> Replica:
        """A copy of everything."""
        replica = Replica(self._cluster.store, with_specs=self._with_specs)
        replica.load()
        return replica

    def check(self) -> None:
        """Read what the journal tells of, and no more, and compare."""
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
    """A follower with specs, as the monitor is, or without, as clients are."""
    return Follower(cluster, with_specs=request.param)


def test_every_change_of_a_life_is_followed(cluster: StoreDriver, follower: Follower) -> None:
    epoch = cluster.lead()
    cluster.join()
    cluster.want("x", "y", "z")
    follower.check()
    cluster.run(book.park(cluster.keys, epoch, [(X, "no node fits")]))
    follower.check()
    dispatch = cluster.assign(epoch, "x", "y", "z")
    assert dispatch is not None
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


def test_what_changes_many_at_once_is_followed(cluster: StoreDriver, follower: Follower) -> None:
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
def test_a_record_that_somebody_has_put_right_is_read_whatever_else_changes(cluster: StoreDriver, key: str) -> None:
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


def test_a_burst_is_followed_entry_by_entry(cluster: StoreDriver, follower: Follower) -> None:
    for number in range(45):
        cluster.join(NodeName(f"n{number}"))
        cluster.want(f"d{number}")

    follower.check()


def test_who_falls_behind_reads_everything_anew(cluster: StoreDriver, follower: Follower) -> None:
    cluster.started("x")
    follower.check()
    cluster.client.xtrim(cluster.keys.journal, maxlen=0, approximate=False)
    cluster.client.hset(cluster.keys.book, "y", cluster.client.hget(cluster.keys.book, "x"))
    cluster.run(journal.note(cluster.keys, "test", node=N1))

    changes = follower.replica.follow(block_ms=0)

    assert changes.everything
    assert follower.replica.book.keys() == {"x", "y"}


def test_no_text_that_is_a_records_own_is_kept_beyond_it(cluster: StoreDriver, follower: Follower) -> None:
    """Some releases of Python never give back what is interned: a copy in a long-lived process would grow for ever."""
    cluster.started("x")
    follower.check()

    again = "".join(list(follower.replica.book[X].version))

    assert sys.intern(again) is again
