"""A primary that dies under sentinels: the replica that takes over loses no daemon and starts none twice."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from celery_daemons.errors import StoreUnavailable
from celery_daemons.store.keys import LAYOUT, Keys
from tests.conftest import NewProject, NewServer, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE
from tests.support.recorder import RECORDED_LAUNCHERS, Recorder
from tests.support.sentinels import Sentinel
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

NAMES = [f"watch.{number}" for number in range(6)]
SOURCE = (
    PRELUDE.replace("broker=BROKER_URL", 'broker=os.environ["BROKER"]')
    + RECORDED_LAUNCHERS
    + "\n\n@watch.recovery_scanner\ndef all_watches():\n    return [watch.spec(f'watch.{n}') for n in range(6)]\n"
)


@pytest.fixture
def sentinel_of() -> Iterator[Callable[[int], Sentinel]]:
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(Sentinel(port))


def test_nodes_re_register_their_daemons_at_a_promoted_replica_and_no_daemon_restarts(
    new_server: NewServer, sentinel_of: Callable[[int], Sentinel], new_project: NewProject, new_worker: NewWorker
) -> None:
    """Attacks invariant 5: losing the primary of Redis loses no daemon and starts none twice."""
    # Given a primary, its replica, and a sentinel that watches them; the broker is elsewhere
    primary = new_server(flavour="redis")
    replica = new_server(f"replicaof 127.0.0.1 {primary.port}", flavour="redis")
    wait_until(
        lambda: replica.client().info("replication")["master_link_status"] == "up", within=SOON, because="it follows"
    )
    sentinel = sentinel_of(primary.port)
    broker = new_server()
    # The lease outlives the fail-over: two seconds until the primary counts as down, and some for the election.
    settings = {**QUICK, "lease_ttl": 8.0, "redis_url": sentinel.url}
    project = new_project(SOURCE, broker_url=sentinel.url, settings=settings)
    # An old cluster: in a new one, the monitor waits for one lease before it acts.
    with primary.client() as redis:
        redis.hset(Keys(project.namespace).cluster, mapping={"layout": LAYOUT, "created_ms": "1"})
    for name in ("w1", "w2"):
        new_worker(project, name, concurrency=1, wait=False, env={"BROKER": broker.url})
    client = Client.connect(sentinel.url, project.namespace, vnodes=40)
    client.wait_up("w1@test", "w2@test")
    before = client.wait_running_all(NAMES, because="the scanner lists them", within=30)

    # When
    primary.kill()
    wait_until(lambda: sentinel.primary_port() == replica.port, within=SOON, because="the replica is promoted")

    # Then
    def found() -> bool:
        try:
            now = client.running(*NAMES)
        except StoreUnavailable:
            return False
        return now is not None and client.leader() is not None

    wait_until(found, within=SOON, because="the replica answers for the cluster")
    after = client.locate_many(NAMES)
    assert {name: one.token for name, one in after.items()} == {name: one.token for name, one in before.items()}
    recorder = Recorder(project.folder)
    recorder.check()
    assert {name: len(runs) for name, runs in recorder.runs().items()} == dict.fromkeys(NAMES, 1)

    # And what is new starts
    client.want("new", "watch", "[[],{}]")
    client.wait_running("new", within=30)
    client.close()
