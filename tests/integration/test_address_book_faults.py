"""The live replica of the address book when its process forks, Redis is replaced, or its thread fails."""

import threading
import time

import pytest

from celery_daemons import AddressBook, StoreUnavailable
from celery_daemons.store.keys import Keys
from celery_daemons.store.replica import Changes, Replica
from tests.conftest import NewServer
from tests.integration.conftest import module_cluster
from tests.support.clusters import COROUTINE_AND_FUNCTION, SOON, IntegrationCluster
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

LEASE = 2.0

shared_cluster = module_cluster(COROUTINE_AND_FUNCTION, workers={"w1": {}, "w2": {}}, settings={"lease_ttl": LEASE})


@pytest.fixture
def cluster(cluster: IntegrationCluster) -> IntegrationCluster:
    """Return the cluster with both nodes up, also after a test that has killed one."""
    cluster.worker("w1")
    cluster.worker("w2")
    return cluster


def test_a_replica_follows_in_a_process_that_was_forked_inside_its_block(cluster: IntegrationCluster) -> None:
    """As under `gunicorn --preload`: the book is opened at import, and requests are served by forks.

    The fork used to answer from a copy that nothing followed: after one lease, no daemon had an address.
    """
    # Given a daemon, and a process that opens a replica and forks
    cluster.spawn("preloaded", "coroutine")
    answers = cluster.project.python(
        "import os, time\n"
        "from celery_daemons import AddressBook\n"
        f"with AddressBook.connect({cluster.server.url!r}, namespace={cluster.namespace!r}) as book:\n"
        "    book.wait_for('preloaded', timeout=10)\n"
        "    child = os.fork()\n"
        # When the fork looks the daemon up at first, and again after its leases as of the fork have ended
        "    print(book.locate('preloaded').name, flush=True)\n"
        f"    time.sleep({LEASE + 1})\n"
        "    print(book.locate('preloaded').name, [str(node.status) for node in book.nodes()], flush=True)\n"
        "    print(book.wait_for('preloaded', timeout=1).name, book.lag < 1.5, flush=True)\n"
        "    if child:\n"
        "        os.wait()\n"
    )

    # Then both processes have an address at every moment
    assert sorted(answers.splitlines()) == sorted(
        2 * ["preloaded", "preloaded ['up', 'up']", "preloaded True"],
    )


def test_a_replica_that_cannot_be_opened_in_a_fork_raises_an_error_instead_of_returning_no_address(
    cluster: IntegrationCluster, proxy: Proxy
) -> None:
    address = cluster.spawn("cut-off", "coroutine")
    with AddressBook.connect(proxy.url, cluster.namespace) as book:
        book.wait_for("cut-off", timeout=SOON)

        # When Redis refuses the connections of a forked process
        book.note_fork()
        proxy.refuse()

        # Then
        with pytest.raises(StoreUnavailable):
            book.locate("cut-off")

        # When Redis answers again, then so does the replica
        proxy.heal()
        assert book.locate("cut-off") == address


def test_a_replica_loads_again_what_another_server_holds(
    cluster: IntegrationCluster, proxy: Proxy, new_server: NewServer
) -> None:
    """An address whose assignment the promoted replica lacks was returned for as long as its node lived."""
    # Given a copy of the server as it was before a daemon was spawned
    copy = new_server(f"replicaof 127.0.0.1 {cluster.server.port}")
    wait_until(
        lambda: copy.client().info("replication")["master_link_status"] == "up", within=SOON, because="it follows"
    )
    cluster.spawn("earlier", "coroutine")
    wait_until(lambda: copy.client().exists(Keys(cluster.namespace).book), within=SOON, because="it follows")
    with copy.client() as client:
        client.replicaof("NO", "ONE")
    cluster.spawn("unknown-there", "coroutine")
    with AddressBook.connect(proxy.url, cluster.namespace) as book:
        book.wait_for("unknown-there", timeout=SOON)
        incarnations = {node.name: node.incarnation for node in cluster.daemons.nodes()}

        # When the proxy leads to that copy, in which the nodes are alive
        proxy.retarget(copy.port)
        with copy.client() as client:
            for node in incarnations:
                client.zadd(Keys(cluster.namespace).leases, {node: 1000 * (time.time() + 60)})

        # Then
        wait_until(lambda: book.locate("unknown-there") is None, within=SOON, because="that server does not know it")
        assert book.lag < 3.0


def test_a_replica_survives_an_error_that_is_none_of_redis(
    cluster: IntegrationCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that ended would leave a copy that nothing follows."""
    real = Replica.follow
    with cluster.daemons.address_book() as book:
        broken = threading.Event()

        def follow(self: Replica, *, block_ms: int) -> Changes:
            if not broken.is_set():
                broken.set()
                raise MemoryError
            return real(self, block_ms=block_ms)

        monkeypatch.setattr(Replica, "follow", follow)
        assert broken.wait(SOON)
        cluster.daemons.spawn("after-all", "coroutine")
        assert book.wait_for("after-all", timeout=SOON).name == "after-all"
