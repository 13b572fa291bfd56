"""The queues of departed nodes, which are remembered until they are deleted from the broker."""

import pytest

from celery_daemons.domain.names import Epoch
from celery_daemons.store import lease, queries
from tests.store.driver import I1, I2, N1, N2, StoreDriver


def test_the_queues_of_a_node_that_left_are_remembered(cluster: StoreDriver) -> None:
    """Kombu #294: dead workers leave queues behind."""
    before = cluster.now_ms()
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))

    (gone,) = queries.gone(cluster.store).values()

    assert (gone.queue, gone.spawn_queue) == ("q1", "s1")
    assert before <= gone.at_ms <= cluster.now_ms()


def test_the_queues_of_a_node_that_was_lost_are_remembered(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x")
    cluster.end_lease()

    cluster.sweep(epoch)
    cluster.sweep(epoch)

    assert set(queries.gone(cluster.store)) == {N1}


@pytest.mark.parametrize("how", ["join", "reassert"])
def test_a_node_that_comes_back_keeps_its_queues(cluster: StoreDriver, how: str) -> None:
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))

    if how == "join":
        cluster.join(incarnation=I2)
    else:
        cluster.reassert(incarnation=I2)

    assert queries.gone(cluster.store) == {}


def test_deleted_queues_are_forgotten(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))

    assert cluster.run(lease.forget_queues(cluster.keys, epoch, N1))
    assert not cluster.run(lease.forget_queues(cluster.keys, epoch, N1))
    assert not cluster.run(lease.forget_queues(cluster.keys, epoch, N2))
    assert queries.gone(cluster.store) == {}


def test_only_the_leader_forgets_queues(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))
    before = cluster.contents()

    assert not cluster.run(lease.forget_queues(cluster.keys, Epoch(epoch - 1), N1))
    assert cluster.contents() == before
