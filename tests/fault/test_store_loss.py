"""Losing Redis's data, its connection or its primary loses no daemon and starts none twice."""

import time
from pathlib import Path

from redis import Redis

from tests.conftest import NewServer
from tests.fault.conftest import OnStage
from tests.fault.signals import SOON, wait_dead
from tests.fault.stage import Stage
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: An outage that is shorter than this can be told from one that is longer, on a machine that does other things too.
PATIENT = {"lease_ttl": 2.0, "heartbeat_interval": 0.4}
LEASE = 2.0
#: Long enough that one node can be heard well before another one, and both within their lease.
LATE = {"lease_ttl": 3.0, "heartbeat_interval": 0.4}
#: Well below what a late heartbeat leaves of a lease.
BRIEF = 0.5
A, B = ("w1@test", "w2@test")


def want_another(stage: Stage, name: str) -> None:
    """Want a daemon that no scanner lists, and wait until it runs."""
    stage.client.want(name, "watch", "[[],{}]")
    stage.client.wait_running(name, within=SOON)


def test_a_flushed_redis_hears_from_the_nodes_what_runs_and_no_daemon_notices(on_stage: OnStage) -> None:
    """Attacks: all data is lost, under nodes and a monitor that know nothing of it (no token is touched)."""
    # Given
    stage = on_stage(settings=PATIENT)
    want_another(stage, "watch.unlisted")
    unlisted = stage.client.locate("watch.unlisted")
    assert unlisted is not None

    # When
    stage.server.client().flushall()

    # Then
    stage.final_check()
    stage.untouched(stage.wanted)
    again = stage.client.wait_running("watch.unlisted", within=SOON)
    assert again.token == unlisted.token
    # And what is wanted now is started, by the monitor of the new epoch
    want_another(stage, "watch.later")
    for name in ("watch.later", "watch.unlisted"):
        stage.client.forget(name)


def test_a_redis_restarted_without_its_data_hears_from_the_nodes_what_runs(on_stage: OnStage) -> None:
    """Attacks: connections and data are lost at once (no token is touched)."""
    # Given
    stage = on_stage(settings=PATIENT)

    # When
    stage.server.restart(keep_data=False)

    # Then
    stage.final_check()
    stage.untouched(stage.wanted)


def test_an_outage_shorter_than_the_lease_restarts_nothing(on_stage: OnStage) -> None:
    """Attacks: a node that gives its lease up before its time (no token is touched)."""
    # Given
    stage = on_stage(settings=PATIENT)
    start = stage.journal_end()

    # When
    stage.server.pause()
    time.sleep(BRIEF)
    stage.server.resume()

    # Then
    stage.final_check()
    stage.untouched(stage.wanted)
    assert not stage.events("lost", start)


def test_an_outage_longer_than_the_lease_stops_all_and_brings_all_back_to_their_nodes(on_stage: OnStage) -> None:
    """Attacks: leases that ended while nobody could renew them; the first node to come back takes everything."""
    # Given
    stage = on_stage(settings=PATIENT)
    start = stage.journal_end()
    hosts = [host for node in stage.ways for host in stage.hosts(node)]

    # When
    stage.server.pause()
    wait_dead(hosts, because="their leases end")
    stage.server.resume()

    # Then
    wait_until(lambda: stage.client.restarted(stage.before), within=SOON, because="Redis answers again")
    now = stage.final_check()
    assert {name: one.node for name, one in now.items()} == {name: one.node for name, one in stage.before.items()}
    assert not stage.events("lost", start)


def test_daemons_that_prefer_a_duplicate_to_a_gap_run_through_a_long_outage(on_stage: OnStage) -> None:
    """Attacks: on_store_loss="keep" is of no use if its daemons are swept when Redis is back (no token is touched)."""
    # Given
    stage = on_stage(settings={**PATIENT, "on_store_loss": "keep"})
    start, (_, leader) = stage.journal_end(), stage.leading()

    # When
    for way in stage.ways.values():
        way.refuse()
    end = time.monotonic() + LEASE + BRIEF
    wait_until(
        lambda: all(lives[-1].last > end for lives in stage.witness.lives().values()),
        within=SOON,
        because="they run on without a lease",
    )
    # Then one is back, and leads, well before the other
    stage.ways[A].heal()
    wait_until(lambda: newer(stage, leader.epoch), within=SOON, because=f"{A} finds nobody who leads")
    time.sleep(BRIEF)
    stage.ways[B].heal()
    stage.final_check()
    stage.untouched(stage.wanted)
    assert not stage.events("lost", start)


def newer(stage: Stage, epoch: int) -> bool:
    """Whether a monitor leads under a newer epoch."""
    leader = stage.client.leader()
    return leader is not None and leader.epoch > epoch


class Replica:
    """A replica of a stage's server, and the way by which it hears of writes."""

    def __init__(self, stage: Stage, server: Server, way: Proxy) -> None:
        self.server, self.way = server, way
        self.redis: Redis = server.client()
        self.redis.replicaof("127.0.0.1", way.port)
        wait_until(self._up, within=SOON, because="the replica was just told of its primary")
        self._primary = stage.server.client()
        self._primary.wait(1, 5000)

    def promote(self) -> None:
        """Make it a primary."""
        self.redis.replicaof("NO", "ONE")

    def _up(self) -> bool:
        return bool(self.redis.info("replication")["master_link_status"] == "up")


def first_to_speak(stage: Stage, node: str, others: str) -> None:
    """Let one node be heard well before another one, which is late but has its lease still."""
    before = stage.lease_end(node)
    wait_until(lambda: stage.lease_end(node) > before, within=SOON, because=f"{node} finds the server")
    time.sleep(BRIEF)
    stage.ways[others].heal()


def test_a_redis_restarted_with_old_data_starts_nothing_that_has_moved_since(on_stage: OnStage) -> None:
    """Attacks: the book says of every daemon of a node that it is there still, under a token that was good once."""
    # Given data that were saved before the daemons of one node moved to the other
    stage = on_stage(settings=LATE, broker="apart")
    redis = stage.server.client()
    redis.save()
    stage.empty(A)
    want_another(stage, "watch.unlisted")
    moved = stage.all_well()

    # When the node that had them is the first to speak
    stage.ways[B].refuse()
    stage.server.kill()
    stage.server.start()
    first_to_speak(stage, A, B)

    # Then
    now = stage.final_check()
    assert {name: one.token for name, one in now.items()} == {name: one.token for name, one in moved.items()}
    stage.client.wait_running("watch.unlisted", within=SOON)
    stage.client.forget("watch.unlisted")
    (Path(redis.config_get("dir")["dir"]) / "dump.rdb").unlink()


def test_a_new_agent_takes_no_old_data_at_its_word(on_stage: OnStage) -> None:
    """Attacks: who has just started knows of no other server, and the book says what it should run (one at a time)."""
    # Given data that were saved before the daemons of one node moved to the other
    stage = on_stage(settings=LATE, broker="apart")
    redis = stage.server.client()
    redis.save()
    stage.empty(A)

    # When the node that had them starts anew, and is the first to speak
    stage.ways[B].refuse()
    stage.server.kill()
    stage.agent(A).kill()
    stage.server.start()
    first_to_speak(stage, A, B)

    # Then
    stage.final_check()
    (Path(redis.config_get("dir")["dir"]) / "dump.rdb").unlink()


def test_a_fail_over_to_a_replica_without_the_last_writes_starts_nothing_twice(
    on_stage: OnStage, new_server: NewServer
) -> None:
    """Attacks: the new primary says of daemons that they are where they no longer are, and of others nothing."""
    # Given a replica that has heard nothing of the daemons that moved
    stage = on_stage(settings=LATE, broker="apart")
    with Proxy(stage.server.port) as way:
        replica = Replica(stage, new_server(), way)
        way.hole()
        stage.empty(A)
        want_another(stage, "watch.unlisted")
        moved = stage.all_well()

        # When the node that had them is the first to speak
        stage.ways[B].refuse()
        stage.server.kill()
        replica.promote()
        stage.retarget(replica.server)
        first_to_speak(stage, A, B)

    # Then
    now = stage.final_check()
    assert {name: one.token for name, one in now.items()} == {name: one.token for name, one in moved.items()}
    stage.client.wait_running("watch.unlisted", within=SOON)
    # Its server ends with this test.
    stage.well = False


def test_a_read_only_replica_in_place_of_the_primary_counts_as_an_outage(
    on_stage: OnStage, new_server: NewServer
) -> None:
    """Attacks: a server that answers every look-up and refuses every write; leases end on it, and nobody is swept."""
    # Given
    stage = on_stage(settings=PATIENT, broker="apart")
    hosts = [host for node in stage.ways for host in stage.hosts(node)]
    start = stage.journal_end()
    replica = Replica(stage, new_server(), stage.view)

    # When
    stage.retarget(replica.server)
    wait_dead(hosts, because="nothing renews their leases")
    replica.promote()

    # Then
    wait_until(lambda: stage.client.restarted(stage.before), within=SOON, because="the replica takes writes")
    now = stage.final_check()
    assert {name: one.node for name, one in now.items()} == {name: one.node for name, one in stage.before.items()}
    assert not stage.events("lost", start)
    assert "is a read-only replica" in stage.workers[A].output
    stage.well = False
