"""The leak check of the store's tests finds keys without an owner."""

from celery_daemons.domain.names import NodeName
from celery_daemons.store.connection import Store
from tests.store import leaks
from tests.store.driver import StoreDriver


def test_a_running_cluster_leaves_no_key_without_an_owner(cluster: StoreDriver) -> None:
    before = leaks.all_keys(cluster.client) - set(cluster.contents())

    cluster.started("a", "b")

    assert leaks.find(cluster.client, cluster.keys, before) == []


def test_keys_without_an_owner_are_found(cluster: StoreDriver, store: Store) -> None:
    keys = cluster.keys
    before = leaks.all_keys(cluster.client)
    cluster.join()

    cluster.client.set(f"{keys.namespace}-elsewhere", "x")
    cluster.client.sadd(keys.held(NodeName("ghost")), "x")
    cluster.client.zadd(keys.leases, {"phantom": 1})
    cluster.client.set(keys.monitor, "{}")
    wrong = leaks.find(cluster.client, keys, before)

    assert wrong == [
        f"{keys.namespace}-elsewhere: outside the namespace",
        f"{keys.held(NodeName('ghost'))}: its node is not registered",
        "lease of phantom: the node is not registered",
        f"{keys.monitor}: has no expiry",
    ]
    cluster.client.delete(f"{keys.namespace}-elsewhere", keys.held(NodeName("ghost")), keys.monitor)
    cluster.client.zrem(keys.leases, "phantom")
