"""A worker of any pool becomes a node: its daemons run beside the pool, and nothing is left when it ends."""

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, NOTED_RUNS, SOON, IntegrationCluster, title
from tests.support.processes import wait_gone
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import Worker

POOLS = ["prefork", "threads", "solo", "gevent"]
WAITING = 20

SOURCE = (
    EVENT_LOG
    + NOTED_RUNS
    + """
@daemons.launcher
class AsyncRecipe:
    async def run(self, ctx):
        await coroutine(ctx)

@daemons.launcher
class Recipe:
    def run(self, ctx):
        function(ctx)

@daemons.launcher(restart="transient")
def transient(ctx):
    function(ctx)

@app.task
def visit(number):
    note("visitor", "came", number=number)

@app.task
def hold(number):
    note("holder", "holds", number=number)
    while not os.path.exists(FOLDER + "/open"):
        time.sleep(0.02)
"""
)


@pytest.fixture(scope="module", params=POOLS)
def cluster(
    request: pytest.FixtureRequest, valkey: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IntegrationCluster]:
    with IntegrationCluster(tmp_path_factory.mktemp("pools"), valkey, SOURCE, pool=request.param) as cluster:
        yield cluster


@pytest.fixture
def worker(cluster: IntegrationCluster, request: pytest.FixtureRequest) -> Iterator[Worker]:
    """The pool's worker; it is started again if a test has ended it."""
    worker = cluster.worker(concurrency=2)
    request.node.stash[RUNNING] = list(cluster.workers.values())
    yield worker
    cluster.forget_all()


def test_a_worker_of_every_pool_becomes_a_node(cluster: IntegrationCluster, worker: Worker) -> None:
    (node,) = cluster.daemons.nodes()

    assert (node.name, node.status, node.pid) == (worker.node, "up", worker.pid)
    assert node.launchers == ("AsyncRecipe", "Recipe", "coroutine", "function", "threaded", "transient")
    assert (node.labels, node.weight, node.daemons) == ((), 1.0, 0)
    assert "-m celery_daemons.node" in title(cluster.agent(worker))
    assert title(cluster.agent(worker)).endswith(worker.node)


def test_isolation_decides_the_process_of_a_daemon_and_no_daemon_runs_in_the_worker_or_agent(
    cluster: IntegrationCluster, worker: Worker
) -> None:
    """Invariant 7: user code never runs in the worker's main process or in the agent."""
    # When
    kinds = ["coroutine", "AsyncRecipe", "threaded", "function", "Recipe"]
    addresses = {kind: cluster.spawn(f"is-{kind}", kind) for kind in kinds}

    # Then the book names the process that runs each
    seen = {kind: cluster.wait_event(f"is-{kind}", "runs") for kind in kinds}
    assert {kind: address.pid for kind, address in addresses.items()} == {
        kind: entry["pid"] for kind, entry in seen.items()
    }

    # Then coroutines share the main thread of one host, and threads are other threads in it
    host = seen["coroutine"]["pid"]
    assert (seen["coroutine"]["thread"], seen["AsyncRecipe"]["thread"]) == (host, host)
    assert seen["threaded"]["pid"] == host
    assert seen["threaded"]["thread"] != host

    # Then functions have a process each, and all these processes are the agent's, none the worker's or the pool's
    daemon_pids = {host, seen["function"]["pid"], seen["Recipe"]["pid"]}
    assert len(daemon_pids) == 3
    agent = cluster.agent(worker)
    assert daemon_pids <= {process.pid for process in agent.children(recursive=True)}
    pool = {process.pid for process in psutil.Process(worker.pid).children()}
    assert daemon_pids.isdisjoint({worker.pid, agent.pid, *pool})


def test_ordinary_tasks_run_from_the_default_queue_and_from_the_queue_of_the_node(
    cluster: IntegrationCluster, worker: Worker
) -> None:
    # Given
    address = cluster.spawn("neighbour", "coroutine")
    before = len(cluster.events("visitor", "came"))

    # When
    cluster.module.visit.delay(1)
    cluster.module.visit.apply_async([2], queue=address.queue)

    # Then
    cluster.wait_event("visitor", "came", times=before + 2)
    visits = cluster.events("visitor", "came")[before:]
    assert {visit["number"] for visit in visits} == {1, 2}
    pool = {worker.pid, *(process.pid for process in psutil.Process(worker.pid).children())}
    assert {visit["pid"] for visit in visits} <= pool - {cluster.agent(worker).pid}


def test_a_spawn_does_not_wait_for_a_full_pool(cluster: IntegrationCluster, worker: Worker) -> None:
    """Attacks invariant 7: a busy worker holds back messages, but daemons use no pool slot and wait for none."""
    # Given: every slot is held and tasks wait for one
    slots = 1 if cluster.pool == "solo" else 2
    door = cluster.project.folder / "open"
    door.unlink(missing_ok=True)
    held, visits = len(cluster.events("holder", "holds")), len(cluster.events("visitor", "came"))
    for number in range(slots):
        cluster.module.hold.delay(number)
    cluster.wait_event("holder", "holds", times=held + slots)
    for number in range(WAITING):
        cluster.module.visit.delay(number)

    try:
        # When
        cluster.spawn("busy-coroutine", "coroutine")
        cluster.spawn("busy-function", "function")

        # Then both run while the pool is as full as before
        cluster.wait_event("busy-coroutine", "runs")
        cluster.wait_event("busy-function", "runs")
        assert len(cluster.events("visitor", "came")) == visits
    finally:
        door.touch()
    cluster.wait_event("visitor", "came", times=visits + WAITING)


def test_sigterm_ends_the_worker_with_status_zero_and_leaves_nothing_behind(
    cluster: IntegrationCluster, worker: Worker
) -> None:
    """Attacks invariant 6: a worker that has stopped must leave no keys and no queues behind."""
    # Given
    names = {kind: f"last-{kind}" for kind in ("coroutine", "threaded", "function", "Recipe")}
    for kind, name in names.items():
        cluster.spawn(name, kind)
    family = worker.tree()
    assert len(family) >= 6

    # When
    status = worker.stop()

    # Then every process has gone, and each daemon was asked to stop
    assert status == 0
    wait_gone(family)
    assert worker.tree() == []
    assert all(cluster.events(name, "ends") for name in names.values())

    # Then the daemons are still wanted, and nothing of the node is left but its task queue, which may hold tasks, a
    # note for the next monitor to remove them, and the end of its incarnation
    assert cluster.daemons.nodes() == []
    assert {(record.status, record.desired) for record in cluster.daemons.list()} == {("pending", "running")}
    left = {key.partition(":v1:")[2] or key for key in cluster.redis_keys() if ":v1:" in key or ".spawn" in key}
    assert left == {"book", "clock", "cluster", "counts", "ended", "gone", "journal", "specs"}


@pytest.mark.parametrize("cluster", ["prefork", "solo"], indirect=True)
def test_a_service_manager_that_signals_every_process_loses_no_daemon(
    cluster: IntegrationCluster, worker: Worker
) -> None:
    """Attacks invariant 2: a daemon that was ended by a signal from outside is still wanted, and must run."""
    # Given
    cluster.spawn("whatever", "function")
    cluster.spawn("on-failure", "transient")
    family = worker.tree()

    # When
    for process in family:
        # The host of a daemon of an earlier test may just have ended.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)

    # Then
    wait_gone(family)
    assert cluster.daemons.nodes() == []
    assert {record.name: record.desired for record in cluster.daemons.list()} == {
        "whatever": "running",
        "on-failure": "running",
    }


@pytest.mark.parametrize("cluster", ["prefork"], indirect=True)
def test_a_node_has_the_threads_of_a_plain_worker_and_one_child_more(
    cluster: IntegrationCluster, worker: Worker
) -> None:
    """With a thread in the prefork parent, a forked child can hang on an import lock."""
    # When
    plain = cluster.worker("plain", concurrency=2, options=["--no-daemons"])

    # Then it is no node, and runs two pool processes and nothing else
    assert [node.name for node in cluster.daemons.nodes()] == [worker.node]
    assert [len(plain.tree()), len(worker.tree()) > 4] == [3, True]

    # Then the node's parent has the same pool, and not one thread more
    agent = cluster.agent(worker)
    children = [process for process in psutil.Process(worker.pid).children() if process.pid != agent.pid]
    assert len(children) == 2
    wait_until(
        lambda: psutil.Process(worker.pid).num_threads() == psutil.Process(plain.pid).num_threads(),
        within=SOON,
        because="the agent's start is over",
    )

    # Then the plain one takes tasks
    before = len(cluster.events("visitor", "came"))
    worker.stop()
    cluster.module.visit.delay(3)
    cluster.wait_event("visitor", "came", times=before + 1)
    assert plain.stop() == 0
