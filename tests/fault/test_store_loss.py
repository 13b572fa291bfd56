"""Losing Redis's data, its connection or its primary loses no daemon and starts none twice."""

import time
from pathlib import Path

import pytest
from redis import Redis

from tests.conftest import NewServer
from tests.fault.conftest import NewFaultCluster
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON, wait_dead
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Long enough to distinguish a short outage from a long one on a busy machine.
PATIENT = {"lease_ttl": 2.0, "heartbeat_interval": 0.4}
LEASE = 2.0
#: Long enough for one node to reconnect well before the other, and both within their lease.
LATE = {"lease_ttl": 3.0, "heartbeat_interval": 0.4}
#: The same, with time for a server to become a replica and a primary again.
VERY_LATE = {"lease_ttl": 6.0, "heartbeat_interval": 0.4}
#: Well below the part of a lease that remains after a late heartbeat.
BRIEF = 0.5
A, B = ("w1@test", "w2@test")


def want_another(cluster: FaultCluster, name: str) -> None:
    """Spawn a daemon that no scanner lists, and wait until the daemon runs."""
    cluster.client.want(name, "watch", "[[],{}]")
    cluster.client.wait_running(name, within=SOON)


def test_nodes_re_register_their_daemons_in_a_flushed_redis_and_no_daemon_restarts(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 5: all data is lost without any notice to the nodes and the monitor. No token may change."""
    # Given
    cluster = fault_cluster(settings=PATIENT)
    want_another(cluster, "watch.unlisted")
    unlisted = cluster.client.locate("watch.unlisted")
    assert unlisted is not None

    # When
    cluster.server.client().flushall()

    # Then
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    again = cluster.client.wait_running("watch.unlisted", within=SOON)
    assert again.token == unlisted.token
    # And what is wanted now is started, by the monitor of the new epoch
    want_another(cluster, "watch.later")
    for name in ("watch.later", "watch.unlisted"):
        cluster.client.forget(name)


def test_nodes_re_register_their_daemons_in_a_redis_restarted_without_data(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 5: connections and data are lost at the same time. No token may change."""
    # Given
    cluster = fault_cluster(settings=PATIENT)

    # When
    cluster.server.restart(keep_data=False)

    # Then
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)


def test_a_redis_outage_shorter_than_the_lease_restarts_no_daemon(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 5: a node might give up its lease too early. No token may change."""
    # Given
    cluster = fault_cluster(settings=PATIENT)
    start = cluster.journal_end()

    # When
    cluster.server.pause()
    time.sleep(BRIEF)
    cluster.server.resume()

    # Then
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    assert not cluster.events("lost", start)


def test_a_redis_outage_longer_than_the_lease_stops_all_daemons_and_restarts_them_on_their_nodes(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 5: all leases end at once, and the first node that returns must not take everything."""
    # Given
    cluster = fault_cluster(settings=PATIENT)
    start = cluster.journal_end()
    hosts = [host for node in cluster.proxies for host in cluster.hosts(node)]

    # When
    cluster.server.pause()
    wait_dead(hosts, because="their leases end")
    cluster.server.resume()

    # Then
    wait_until(lambda: cluster.client.restarted(cluster.before), within=SOON, because="Redis answers again")
    now = cluster.final_check()
    assert {name: one.node for name, one in now.items()} == {name: one.node for name, one in cluster.before.items()}
    assert not cluster.events("lost", start)


@pytest.mark.heavy
def test_daemons_with_on_store_loss_keep_run_through_a_long_redis_outage(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 5: daemons that were kept might be swept when Redis returns. No token may change."""
    # Given
    cluster = fault_cluster(settings={**PATIENT, "on_store_loss": "keep"})
    start, (_, leader) = cluster.journal_end(), cluster.wait_leader()

    # When
    for proxy in cluster.proxies.values():
        proxy.refuse()
    end = time.monotonic() + LEASE + BRIEF
    wait_until(
        lambda: all(runs[-1].last > end for runs in cluster.recorder.runs().values()),
        within=SOON,
        because="they run on without a lease",
    )
    # Then one is back, and leads, well before the other
    cluster.proxies[A].heal()
    wait_until(lambda: newer(cluster, leader.epoch), within=SOON, because=f"{A} finds no leader")
    time.sleep(BRIEF)
    cluster.proxies[B].heal()
    cluster.final_check()
    cluster.assert_not_restarted(cluster.wanted)
    assert not cluster.events("lost", start)


def newer(cluster: FaultCluster, epoch: int) -> bool:
    """Return whether a monitor leads under a newer epoch."""
    leader = cluster.client.leader()
    return leader is not None and leader.epoch > epoch


class Replica:
    """A replica of the server of a cluster, and the proxy through which the replica receives writes."""

    def __init__(self, cluster: FaultCluster, server: Server, proxy: Proxy) -> None:
        self.server, self.proxy = server, proxy
        self.redis: Redis = server.client()
        self.redis.replicaof("127.0.0.1", proxy.port)
        wait_until(self._up, within=SOON, because="the replica was just given its primary")
        self._primary = cluster.server.client()
        self._primary.wait(1, 5000)

    def promote(self) -> None:
        """Make the replica a primary."""
        self.redis.replicaof("NO", "ONE")

    def _up(self) -> bool:
        return bool(self.redis.info("replication")["master_link_status"] == "up")


def first_to_speak(cluster: FaultCluster, node: str, others: str) -> None:
    """Let one node reconnect well before the other, which is late but still has its lease."""
    before = cluster.lease_end(node)
    wait_until(lambda: cluster.lease_end(node) > before, within=SOON, because=f"{node} finds the server")
    time.sleep(BRIEF)
    cluster.proxies[others].heal()


def test_a_redis_restarted_with_old_data_starts_no_daemon_that_has_moved_since(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 1 and 9: the old address book names former nodes of daemons, under tokens once valid."""
    # Given data that were saved before the daemons of one node moved to the other
    cluster = fault_cluster(settings=LATE, broker="apart")
    redis = cluster.server.client()
    redis.save()
    cluster.move_all_from(A)
    want_another(cluster, "watch.unlisted")
    moved = cluster.wait_all_running()

    # When their former node is the first to reconnect
    cluster.proxies[B].refuse()
    cluster.server.kill()
    cluster.server.start()
    first_to_speak(cluster, A, B)

    # Then
    now = cluster.final_check()
    assert {name: one.token for name, one in now.items()} == {name: one.token for name, one in moved.items()}
    cluster.client.wait_running("watch.unlisted", within=SOON)
    cluster.client.forget("watch.unlisted")
    (Path(redis.config_get("dir")["dir"]) / "dump.rdb").unlink()


def test_a_new_agent_does_not_trust_the_data_of_a_redis_restarted_with_old_data(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 1 and 9: a new agent has never seen the newer data, and the old data says what to run."""
    # Given data that were saved before the daemons of one node moved to the other
    cluster = fault_cluster(settings=LATE, broker="apart")
    redis = cluster.server.client()
    redis.save()
    cluster.move_all_from(A)

    # When the former node restarts its agent, and is the first to reconnect
    cluster.proxies[B].refuse()
    cluster.server.kill()
    cluster.agent(A).kill()
    cluster.server.start()
    first_to_speak(cluster, A, B)

    # Then
    cluster.final_check()
    (Path(redis.config_get("dir")["dir"]) / "dump.rdb").unlink()


def test_a_failover_to_a_replica_without_the_last_writes_starts_no_daemon_twice(
    fault_cluster: NewFaultCluster, new_server: NewServer
) -> None:
    """Attacks invariants 1 and 5: the new primary has old places of some daemons and no record of others."""
    # Given a replica that has received nothing about the daemons that moved
    cluster = fault_cluster(settings=LATE, broker="apart")
    with Proxy(cluster.server.port) as proxy:
        replica = Replica(cluster, new_server(), proxy)
        proxy.hole()
        cluster.move_all_from(A)
        want_another(cluster, "watch.unlisted")
        moved = cluster.wait_all_running()

        # When their former node is the first to reconnect
        cluster.proxies[B].refuse()
        cluster.server.kill()
        replica.promote()
        cluster.retarget(replica.server)
        first_to_speak(cluster, A, B)

    # Then
    now = cluster.final_check()
    assert {name: one.token for name, one in now.items()} == {name: one.token for name, one in moved.items()}
    cluster.client.wait_running("watch.unlisted", within=SOON)
    # Its server ends with this test.
    cluster.reusable = False


@pytest.mark.heavy
def test_a_failover_and_back_that_no_connection_notices_starts_no_daemon_twice(
    fault_cluster: NewFaultCluster, new_server: NewServer
) -> None:
    """Attacks invariants 1 and 9: the server has its run id, all connections, and the data of a replica."""
    # Given a replica that has received nothing about the daemons that moved
    cluster = fault_cluster(settings=VERY_LATE, broker="apart")
    primary = cluster.server.client()
    with Proxy(cluster.server.port) as proxy:
        replica = Replica(cluster, new_server(), proxy)
        proxy.hole()
        cluster.move_all_from(A)
        want_another(cluster, "watch.unlisted")
        moved = cluster.wait_all_running()

        # When the replica leads for a moment, while their node is cut off
        cluster.proxies[B].hole()
        replica.promote()
        primary.replicaof("127.0.0.1", replica.server.port)
        wait_until(
            lambda: primary.info("replication").get("master_link_status") == "up",
            within=SOON,
            because="the former primary has the data of the replica",
        )
        primary.replicaof("NO", "ONE")
        first_to_speak(cluster, A, B)

    # Then
    now = cluster.final_check()
    assert {name: one.token for name, one in now.items()} == {name: one.token for name, one in moved.items()}
    cluster.client.wait_running("watch.unlisted", within=SOON)
    cluster.client.forget("watch.unlisted")


def test_a_read_only_replica_in_place_of_the_primary_counts_as_an_outage(
    fault_cluster: NewFaultCluster, new_server: NewServer
) -> None:
    """Attacks invariants 5 and 9: the server answers every read and refuses every write, so leases end unswept."""
    # Given
    cluster = fault_cluster(settings=PATIENT, broker="apart")
    hosts = [host for node in cluster.proxies for host in cluster.hosts(node)]
    start = cluster.journal_end()
    replica = Replica(cluster, new_server(), cluster.client_proxy)

    # When
    cluster.retarget(replica.server)
    wait_dead(hosts, because="nothing renews their leases")
    replica.promote()

    # Then
    wait_until(lambda: cluster.client.restarted(cluster.before), within=SOON, because="the replica takes writes")
    now = cluster.final_check()
    assert {name: one.node for name, one in now.items()} == {name: one.node for name, one in cluster.before.items()}
    assert not cluster.events("lost", start)
    assert "is a read-only replica" in cluster.workers[A].output
    cluster.reusable = False
