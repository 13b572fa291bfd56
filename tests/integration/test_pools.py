"""A worker of any pool becomes a node: its daemons run beside the pool, and nothing is left when it ends."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.conftest import RUNNING
from tests.support.crews import DIARY, SOON, Crew, title
from tests.support.processes import wait_gone
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import Worker

POOLS = ["prefork", "threads", "solo", "gevent"]
WAITING = 20

SOURCE = (
    DIARY
    + """
@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    try:
        await asyncio.Event().wait()
    finally:
        note(ctx.name, "ends")

@daemons.launcher
def function(ctx):
    note(ctx.name, "runs")
    ctx.stopping.wait()
    note(ctx.name, "ends")

@daemons.launcher(isolation="thread")
def threaded(ctx):
    note(ctx.name, "runs")
    ctx.stopping.wait()
    note(ctx.name, "ends")

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
def crew(request: pytest.FixtureRequest, valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("pools"), valkey, SOURCE, pool=request.param) as crew:
        yield crew


@pytest.fixture
def worker(crew: Crew, request: pytest.FixtureRequest) -> Iterator[Worker]:
    """The pool's worker; a test that ended it leaves the next one a new life of it."""
    worker = crew.worker(concurrency=2)
    request.node.stash[RUNNING] = list(crew.workers.values())
    yield worker
    crew.forget_all()


def test_a_worker_becomes_a_node_that_is_up(crew: Crew, worker: Worker) -> None:
    (node,) = crew.daemons.nodes()

    assert (node.name, node.status, node.pid) == (worker.node, "up", worker.pid)
    assert node.launchers == ("AsyncRecipe", "Recipe", "coroutine", "function", "threaded", "transient")
    assert (node.labels, node.weight, node.daemons) == ((), 1.0, 0)
    assert "-m celery_daemons.node" in title(crew.agent(worker))
    assert title(crew.agent(worker)).endswith(worker.node)


def test_daemons_run_where_their_isolation_says_and_never_in_the_worker_or_its_agent(
    crew: Crew, worker: Worker
) -> None:
    """Invariant 7: user code never runs in the worker's main process or in the agent."""
    # When
    kinds = ["coroutine", "AsyncRecipe", "threaded", "function", "Recipe"]
    addresses = {kind: crew.spawn(f"is-{kind}", kind) for kind in kinds}

    # Then the book names the process that runs each
    seen = {kind: crew.noted(f"is-{kind}", "runs") for kind in kinds}
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
    agent = crew.agent(worker)
    assert daemon_pids <= {process.pid for process in agent.children(recursive=True)}
    pool = {process.pid for process in psutil.Process(worker.pid).children()}
    assert daemon_pids.isdisjoint({worker.pid, agent.pid, *pool})


def test_ordinary_tasks_run_on_the_default_queue_and_on_the_node_s_own(crew: Crew, worker: Worker) -> None:
    # Given
    address = crew.spawn("neighbour", "coroutine")
    before = len(crew.diary("visitor", "came"))

    # When
    crew.module.visit.delay(1)
    crew.module.visit.apply_async([2], queue=address.queue)

    # Then
    crew.noted("visitor", "came", times=before + 2)
    visits = crew.diary("visitor", "came")[before:]
    assert {visit["number"] for visit in visits} == {1, 2}
    pool = {worker.pid, *(process.pid for process in psutil.Process(worker.pid).children())}
    assert {visit["pid"] for visit in visits} <= pool - {crew.agent(worker).pid}


def test_a_spawn_does_not_wait_for_a_full_pool(crew: Crew, worker: Worker) -> None:
    """#2788 #6500 #4537: a busy worker sits on messages; daemons take no pool slot and wait for none."""
    # Given: every slot is held and tasks wait for one
    slots = 1 if crew.pool == "solo" else 2
    door = crew.project.folder / "open"
    door.unlink(missing_ok=True)
    held, visits = len(crew.diary("holder", "holds")), len(crew.diary("visitor", "came"))
    for number in range(slots):
        crew.module.hold.delay(number)
    crew.noted("holder", "holds", times=held + slots)
    for number in range(WAITING):
        crew.module.visit.delay(number)

    try:
        # When
        crew.spawn("busy-coroutine", "coroutine")
        crew.spawn("busy-function", "function")

        # Then both run while the pool is as full as before
        crew.noted("busy-coroutine", "runs")
        crew.noted("busy-function", "runs")
        assert len(crew.diary("visitor", "came")) == visits
    finally:
        door.touch()
    crew.noted("visitor", "came", times=visits + WAITING)


def test_sigterm_ends_the_worker_with_status_zero_and_leaves_nothing_behind(crew: Crew, worker: Worker) -> None:
    """#1758 #6089, kombu #294: dead workers leave keys and queues behind."""
    # Given
    names = {kind: f"last-{kind}" for kind in ("coroutine", "threaded", "function", "Recipe")}
    for kind, name in names.items():
        crew.spawn(name, kind)
    family = worker.tree()
    assert len(family) >= 6

    # When
    status = worker.stop()

    # Then every process has gone, and each daemon was asked to stop
    assert status == 0
    wait_gone(family)
    assert worker.tree() == []
    assert all(crew.diary(name, "ends") for name in names.values())

    # Then the daemons are still wanted, and nothing of the node is left but its task queue, which may hold tasks, and
    # a note for the next monitor to look after that
    assert crew.daemons.nodes() == []
    assert {(record.status, record.desired) for record in crew.daemons.list()} == {("pending", "running")}
    left = {key.partition(":v1:")[2] or key for key in crew.redis_keys() if ":v1:" in key or ".spawn" in key}
    assert left == {"book", "clock", "cluster", "gone", "journal", "specs"}


@pytest.mark.parametrize("crew", ["prefork", "solo"], indirect=True)
def test_a_service_manager_that_signals_every_process_loses_no_daemon(crew: Crew, worker: Worker) -> None:
    """Invariant 2: a daemon that is wanted runs; one that was ended by a signal from outside is wanted still."""
    # Given
    crew.spawn("whatever", "function")
    crew.spawn("on-failure", "transient")
    family = worker.tree()

    # When
    for process in family:
        os.kill(process.pid, signal.SIGTERM)

    # Then
    wait_gone(family)
    assert crew.daemons.nodes() == []
    assert {record.name: record.desired for record in crew.daemons.list()} == {
        "whatever": "running",
        "on-failure": "running",
    }


@pytest.mark.parametrize("crew", ["prefork"], indirect=True)
def test_a_worker_without_daemons_is_a_plain_worker_and_a_node_has_no_more_threads_or_children_than_it(
    crew: Crew, worker: Worker
) -> None:
    """celery-healthcheck #45: a thread in the prefork parent, and a forked child hangs on an import lock."""
    # When
    plain = crew.worker("plain", concurrency=2, options=["--no-daemons"])

    # Then it is no node, and runs two pool processes and nothing else
    assert [node.name for node in crew.daemons.nodes()] == [worker.node]
    assert [len(plain.tree()), len(worker.tree()) > 4] == [3, True]

    # Then the node's parent has the same pool, and not one thread more
    agent = crew.agent(worker)
    children = [process for process in psutil.Process(worker.pid).children() if process.pid != agent.pid]
    assert len(children) == 2
    wait_until(
        lambda: psutil.Process(worker.pid).num_threads() == psutil.Process(plain.pid).num_threads(),
        within=SOON,
        because="the agent's start is over",
    )

    # Then the plain one takes tasks
    before = len(crew.diary("visitor", "came"))
    worker.stop()
    crew.module.visit.delay(3)
    crew.noted("visitor", "came", times=before + 1)
    assert plain.stop() == 0
