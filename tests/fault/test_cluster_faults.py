"""What befalls a cluster as a whole: most of it is lost at once, names are taken twice, rubbish comes in everywhere."""

import json
import uuid

from kombu import Connection

from celery_daemons.domain.names import NodeName
from celery_daemons.store.keys import Keys
from tests.fault.cast import chosen_by_ring
from tests.fault.conftest import OnStage
from tests.fault.signals import SOON, freeze, thaw
from tests.fault.stage import Stage
from tests.support.waiting import wait_until

LEASE = 1.5
RECONCILE = 1.0
A, B = ("w1@test", "w2@test")
#: What may be found where a record should be.
RUBBISH = ("", "null", "[]", "{", '{"status": 7}', "\0", json.dumps({"token": "x" * 20_000}))
NO_TEXT = b"\xff\xfe"
#: Far more than a worker takes in at once, or a journal should tell of one by one.
FLOOD = 100_000
#: How many of them a test waits for.
ENOUGH = 5_000
#: Journal entries that a flood may cause: one now and then, which says how many they were.
DROPS = 20


def test_a_worker_under_a_taken_name_stays_a_plain_one_and_joins_when_the_name_is_free(on_stage: OnStage) -> None:
    """Attacks: two workers take each other for the same node (one at a time; celery #2938)."""
    # Given
    stage = on_stage()
    start = stage.journal_end()
    first, second = stage.workers[A], stage.worker(A, "--queues", f"{stage.project.namespace}.second")

    # When
    second.start()
    try:
        stage.wait_event("name-taken", since=start)

        # Then
        stage.task_runs(f"{stage.project.namespace}.second")
        assert [node.pid for node in stage.client.nodes()] == [first.pid, stage.workers[B].pid]
        assert "stays a plain worker and joins when the name is free" in second.output
        assert [told.node for told in stage.events("name-taken", start)] == [A]
        stage.untouched(stage.wanted)

        # When
        first.kill_tree()

        # Then
        wait_until(
            lambda: second.pid in [node.pid for node in stage.client.nodes()],
            within=SOON,
            because="the lease of the first ends",
        )
        stage.untouched(stage.off(A))
        stage.final_check()
    finally:
        second.close()


def test_a_frozen_worker_keeps_its_daemons_and_is_given_more(on_stage: OnStage) -> None:
    """Attacks: daemons depend on the process that takes messages (what is wanted runs, no message has to arrive)."""
    # Given
    stage = on_stage()
    (main, *_) = stage.workers[A].tree()
    name = next(f"watch.more-{n}" for n in range(99) if chosen_by_ring(f"watch.more-{n}", stage.ways) == A)

    # When
    freeze(main)
    stage.client.want(name, "watch", "[[],{}]")

    # Then
    assert stage.client.wait_running(name, within=SOON).node == A
    stage.untouched(stage.wanted)
    thaw(main)
    stage.client.forget(name)
    stage.final_check()


def reported(stage: Stage, node: str, *names: str) -> bool:
    """Whether the log of a node says of all these daemons, and of what is no record, that they are left alone."""
    log = stage.workers[node].output
    return all(f"daemon {name}: its " in log for name in ("watch.rubbish-0", *names))


def newer(stage: Stage, epoch: int) -> bool:
    """Whether a monitor leads under a newer epoch."""
    leader = stage.client.leader()
    return leader is not None and leader.epoch > epoch


def test_corrupt_records_are_left_alone_and_everything_else_goes_on(on_stage: OnStage) -> None:
    """Attacks: one record that nobody can read ends a monitor, and the next one, and the next."""
    # Given
    stage = on_stage()
    keys, redis = Keys(stage.project.namespace), stage.server.client()
    node, leader = stage.leading()
    victim, *others = stage.wanted
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
    stage.client.restart(victim)

    # Then the monitor reports what it reads
    wait_until(lambda: reported(stage, node, victim), within=SOON, because="a change was journalled")
    # And so does its successor, who reads everything
    stage.monitor(node).kill()
    wait_until(lambda: newer(stage, leader.epoch), within=SOON, because="the monitor was killed")
    successor = stage.leading()[1]
    stage.client.want("watch.later", "watch", "[[],{}]")
    stage.client.wait_running("watch.later", within=SOON)
    stage.client.forget("watch.later")
    looks = stage.lease_end(A) + 3000 * RECONCILE
    wait_until(lambda: stage.lease_end(A) > looks, within=SOON, because="some time has passed")
    assert stage.client.leader() == successor
    stage.untouched(others)
    life = stage.witness.lives()[victim][-1]
    assert life.token == stage.before[victim].token, "an entry that cannot be read may be that of a running daemon"
    # And what was put right goes on
    redis.hset(keys.book, victim, sound or "")
    stage.client.restart(victim)
    wait_until(
        lambda: stage.client.restarted({victim: stage.before[victim]}), within=SOON, because="its record can be read"
    )
    stage.final_check()
    # What is left of the rubbish is for an operator.
    stage.well = False


def test_a_flood_of_malformed_messages_is_dropped_and_nothing_notices(on_stage: OnStage) -> None:
    """Attacks: whoever can write to the broker fills the journal, or keeps a node too busy for its lease."""
    # Given
    stage = on_stage()
    start = stage.journal_end()
    row = json.loads(stage.server.client().hget(Keys(stage.project.namespace).nodes, A) or "")
    queue = row["spawn_queue"]
    raw = an_envelope(stage)
    redis = stage.server.client()
    before = redis.xlen(Keys(stage.project.namespace).journal)

    # When
    pipe = redis.pipeline(transaction=False)
    for _ in range(FLOOD):
        pipe.lpush(queue, raw.replace("TAG", uuid.uuid4().hex))
    pipe.execute()
    stage.client.want("watch.later", "watch", "[[],{}]")

    # Then
    stage.client.wait_running("watch.later", within=SOON)
    stage.client.forget("watch.later")
    wait_until(lambda: redis.llen(queue) < FLOOD - ENOUGH, within=SOON, because="they are dropped")
    stage.wait_event("message-rejected", since=start)
    redis.delete(queue)
    stage.task_runs(row["queue"])
    assert len(stage.events("message-rejected", start)) < DROPS
    assert redis.xlen(Keys(stage.project.namespace).journal) - before < 2 * DROPS
    assert not stage.events("lost", start)
    stage.untouched(stage.wanted)
    stage.final_check()


def an_envelope(stage: Stage) -> str:
    """A message that is no spawn task, as the broker holds it; its delivery tag is TAG."""
    with Connection(stage.project.broker_url) as connection, stage.server.client() as redis:
        queue = connection.SimpleQueue("envelope")
        queue.put({"no": "spawn task"}, serializer="json")
        message = json.loads(redis.lpop("envelope"))
        message["properties"]["delivery_tag"] = "TAG"
        return json.dumps(message)


def test_when_most_nodes_are_lost_at_once_the_monitor_waits_one_more_lease_before_it_moves_anything(
    on_stage: OnStage,
) -> None:
    """Attacks: a network that fails takes for dead what is not, and the rest is crushed by what it has to take."""
    # Given
    stage = on_stage(nodes=("w1", "w2", "w3"))
    survivor, leader = stage.leading()
    lost = [name for name in stage.ways if name != survivor]
    start = stage.journal_end()

    # When
    freeze(*(stage.agent(name) for name in lost))
    for name in lost:
        stage.workers[name].kill_tree()

    # Then
    stage.wait_event("mass-failure", since=start)
    stage.wait_event("lost", since=start, times=len(lost))
    (brake,) = stage.events("mass-failure", start)
    assert brake.cause == "2 of 3 nodes lost within one lease; waiting one more lease before sweeping them"
    assert f"monitor: {brake.cause}" in stage.workers[survivor].output
    assert min(one.at_ms for one in stage.events("lost", start)) >= brake.at_ms + 0.9 * LEASE * 1000
    wait_until(lambda: stage.holds(survivor) == set(stage.wanted), within=SOON, because="the last one takes over")
    stage.untouched(stage.on(survivor))
    assert stage.leading() == (survivor, leader)
    for name in lost:
        stage.workers[name].start()
    stage.final_check()
