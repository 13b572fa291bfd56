"""Faults of a whole cluster: most nodes lost at once, one name used twice, malformed records and messages."""

import json
import uuid

import pytest
from kombu import Connection

from celery_daemons.domain.names import NodeName
from celery_daemons.store.keys import Keys
from tests.fault.conftest import NewFaultCluster
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON, freeze, thaw
from tests.support.waiting import wait_until

LEASE = 1.5
RECONCILE = 1.0
A, B = ("w1@test", "w2@test")
#: What may be found where a record should be.
RUBBISH = ("", "null", "[]", "{", '{"status": 7}', "\0", json.dumps({"token": "x" * 20_000}))
NO_TEXT = b"\xff\xfe"
#: Far more messages than a worker prefetches, and more than the journal should record one by one.
FLOOD = 100_000
#: How many of them a test waits for.
ENOUGH = 5_000
#: Journal entries that a flood may cause: one now and then, which says how many they were.
DROPS = 20


def test_a_worker_whose_name_is_taken_runs_without_daemons_until_the_name_is_free(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: two workers with one name might take each other for the same node."""
    # Given
    cluster = fault_cluster()
    start = cluster.journal_end()
    first, second = cluster.workers[A], cluster.worker(A, "--queues", f"{cluster.project.namespace}.second")

    # When
    second.start()
    try:
        cluster.wait_event("name-taken", since=start)

        # Then
        cluster.run_task(f"{cluster.project.namespace}.second")
        assert [node.pid for node in cluster.client.nodes()] == [first.pid, cluster.workers[B].pid]
        assert "stays a plain worker and joins when the name is free" in second.output
        assert [entry.node for entry in cluster.events("name-taken", start)] == [A]
        cluster.assert_not_restarted(cluster.wanted)

        # When
        first.kill_tree()

        # Then
        wait_until(
            lambda: second.pid in [node.pid for node in cluster.client.nodes()],
            within=SOON,
            because="the lease of the first ends",
        )
        cluster.assert_not_restarted(cluster.names_not_on(A))
        cluster.final_check()
    finally:
        second.close()


def test_a_frozen_worker_keeps_its_daemons_and_is_given_more(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 2: daemons must start although the process that consumes messages is frozen."""
    # Given
    cluster = fault_cluster()
    (main, *_) = cluster.workers[A].tree()
    more = [f"watch.more-{number}" for number in range(len(cluster.proxies) * 3)]

    # When
    freeze(main)
    for name in more:
        cluster.client.want(name, "watch", "[[],{}]")

    # Then
    nodes = {cluster.client.wait_running(name, within=SOON).node for name in more}
    assert A in nodes
    cluster.assert_not_restarted(cluster.wanted)
    thaw(main)
    for name in more:
        cluster.client.forget(name)
    cluster.final_check()


def reported(cluster: FaultCluster, node: str, *names: str) -> bool:
    """Whether the log of a node says of all these daemons, and of what is no record, that they are left alone."""
    log = cluster.workers[node].output
    return all(f"daemon {name}: its " in log for name in ("watch.rubbish-0", *names))


def newer(cluster: FaultCluster, epoch: int) -> bool:
    """Return whether a monitor leads under a newer epoch."""
    leader = cluster.client.leader()
    return leader is not None and leader.epoch > epoch


def test_corrupt_records_are_left_alone_and_all_other_daemons_run_on(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariants 2 and 9: an unreadable record might end the monitor and each of its successors."""
    # Given
    cluster = fault_cluster()
    keys, redis = Keys(cluster.project.namespace), cluster.server.client()
    node, leader = cluster.wait_leader()
    victim, *others = cluster.wanted
    sound = redis.hget(keys.book, victim)

    # When
    for number, text in enumerate(RUBBISH):
        name, host = f"watch.rubbish-{number}", f"rubbish-{number}@test"
        for key, field in ((keys.specs, name), (keys.book, name), (keys.nodes, host), (keys.scans, name)):
            redis.hset(key, field, text)
        redis.zadd(keys.leases, {host: number})
        redis.sadd(keys.held(NodeName(A)), name)
        redis.xadd(keys.journal, {"event": text, "epoch": text, "items": json.dumps([[name, text, text]])})
    for key in (keys.specs, keys.book, keys.nodes):
        redis.execute_command("HSET", key, NO_TEXT, NO_TEXT)
    redis.execute_command("SADD", keys.held(NodeName(A)), NO_TEXT)
    redis.execute_command("XADD", keys.journal, "*", NO_TEXT, NO_TEXT, "items", NO_TEXT)
    redis.hset(keys.book, victim, "{")
    cluster.client.restart(victim)

    # Then the monitor reports what it reads
    wait_until(lambda: reported(cluster, node, victim), within=SOON, because="a change was journalled")
    # And so does its successor, which reads every record
    cluster.monitor(node).kill()
    wait_until(lambda: newer(cluster, leader.epoch), within=SOON, because="the monitor was killed")
    successor = cluster.wait_leader()[1]
    cluster.client.want("watch.later", "watch", "[[],{}]")
    cluster.client.wait_running("watch.later", within=SOON)
    cluster.client.forget("watch.later")
    looks = cluster.lease_end(A) + 3000 * RECONCILE
    wait_until(lambda: cluster.lease_end(A) > looks, within=SOON, because="some time has passed")
    assert cluster.client.leader() == successor
    cluster.assert_not_restarted(others)
    run = cluster.recorder.runs()[victim][-1]
    assert run.token == cluster.before[victim].token, "an entry that cannot be read may be that of a running daemon"
    # And daemons whose records were repaired continue
    redis.hset(keys.book, victim, sound or "")
    cluster.client.restart(victim)
    wait_until(
        lambda: cluster.client.restarted({victim: cluster.before[victim]}),
        within=SOON,
        because="its record can be read",
    )
    cluster.final_check()
    # An operator has to remove the other corrupt records.
    cluster.reusable = False


@pytest.mark.timing
def test_a_flood_of_malformed_messages_is_dropped_and_no_daemon_restarts(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 2: a flood on the broker might fill the journal or keep a node from renewing its lease."""
    # Given
    cluster = fault_cluster()
    start = cluster.journal_end()
    row = json.loads(cluster.server.client().hget(Keys(cluster.project.namespace).nodes, A) or "")
    queue = row["spawn_queue"]
    raw = an_envelope(cluster)
    redis = cluster.server.client()
    before = redis.xlen(Keys(cluster.project.namespace).journal)

    # When
    pipe = redis.pipeline(transaction=False)
    for _ in range(FLOOD):
        pipe.lpush(queue, raw.replace("TAG", uuid.uuid4().hex))
    pipe.execute()
    cluster.client.want("watch.later", "watch", "[[],{}]")

    # Then
    cluster.client.wait_running("watch.later", within=SOON)
    cluster.client.forget("watch.later")
    wait_until(lambda: redis.llen(queue) < FLOOD - ENOUGH, within=SOON, because="they are dropped")
    cluster.wait_event("message-rejected", since=start)
    redis.delete(queue)
    cluster.run_task(row["queue"])
    assert len(cluster.events("message-rejected", start)) < DROPS
    assert redis.xlen(Keys(cluster.project.namespace).journal) - before < 2 * DROPS
    assert not cluster.events("lost", start)
    cluster.assert_not_restarted(cluster.wanted)
    cluster.final_check()


def an_envelope(cluster: FaultCluster) -> str:
    """A message that is no spawn task, as the broker holds it; its delivery tag is TAG."""
    with Connection(cluster.project.broker_url) as connection, cluster.server.client() as redis:
        queue = connection.SimpleQueue("envelope")
        queue.put({"no": "spawn task"}, serializer="json")
        message = json.loads(redis.lpop("envelope"))
        message["properties"]["delivery_tag"] = "TAG"
        return json.dumps(message)


@pytest.mark.heavy
def test_the_monitor_waits_one_more_lease_before_moving_daemons_when_most_nodes_are_lost(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 2 and 9: a network failure makes live nodes look dead, and the rest would be overloaded."""
    # Given
    cluster = fault_cluster(nodes=("w1", "w2", "w3"))
    survivor, leader = cluster.wait_leader()
    lost = [name for name in cluster.proxies if name != survivor]
    start = cluster.journal_end()

    # When
    freeze(*(cluster.agent(name) for name in lost))
    for name in lost:
        cluster.workers[name].kill_tree()

    # Then
    cluster.wait_event("mass-failure", since=start)
    cluster.wait_event("lost", since=start, times=len(lost))
    (brake,) = cluster.events("mass-failure", start)
    assert brake.cause == "2 of 3 nodes lost within one lease; waiting one more lease before sweeping them"
    assert f"monitor: {brake.cause}" in cluster.workers[survivor].output
    assert min(one.at_ms for one in cluster.events("lost", start)) >= brake.at_ms + 0.9 * LEASE * 1000
    wait_until(lambda: cluster.holds(survivor) == set(cluster.wanted), within=SOON, because="the last one takes over")
    cluster.assert_not_restarted(cluster.names_on(survivor))
    assert cluster.wait_leader() == (survivor, leader)
    for name in lost:
        cluster.workers[name].start()
    cluster.final_check()
