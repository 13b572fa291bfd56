"""Tasks, canvases and control commands give the same results on a node with 23 daemons as on a plain worker."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Two clusters with a pool and 23 daemons.
pytestmark = pytest.mark.heavy

COROUTINES = 20
PROCESSES = 3

SOURCE = (
    EVENT_LOG
    + """
from celery.exceptions import Ignore, Reject

app.conf.update(result_backend=BROKER_URL, result_extended=True)

@daemons.launcher
async def coroutine(ctx):
    while True:
        await ctx.sleep(0.2)

@daemons.launcher
def process(ctx):
    while not ctx.stopping.is_set():
        ctx.sleep(0.2)

@app.task
def add(x, y):
    return x + y

@app.task
def total(numbers):
    return sum(numbers)

@app.task
def fail(word):
    raise ValueError(word)

@app.task
def report(request, error, traceback):
    note("report", repr(error))

@app.task(bind=True, max_retries=3)
def stubborn(self, fails):
    if self.request.retries < fails:
        raise self.retry(countdown=0.05)
    return self.request.retries

@app.task(bind=True)
def replaced(self, x):
    raise self.replace(add.si(x, 1) | add.s(10))

@app.task
def sleeping(seconds):
    note("sleeping", "begins")
    time.sleep(seconds)
    return "slept"

@app.task(rate_limit="4/s")
def limited():
    return time.time()

@app.task(bind=True, acks_late=True)
def rejected(self):
    note("rejected", "runs")
    raise Reject("unwanted", requeue=False)

@app.task
def ignored():
    note("ignored", "runs")
    raise Ignore()
"""
)


@pytest.fixture(scope="module", params=["daemons beside", "a plain worker"])
def shared(
    request: pytest.FixtureRequest, valkey: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IntegrationCluster]:
    """A worker with a pool of two, as a node with 23 daemons or without the package's steps."""
    beside = request.param == "daemons beside"
    with IntegrationCluster(tmp_path_factory.mktemp("beside"), valkey, SOURCE, pool="prefork") as cluster:
        cluster.worker(options=[] if beside else ["--no-daemons"], concurrency=2)
        if beside:
            for launcher, count in (("coroutine", COROUTINES), ("process", PROCESSES)):
                for number in range(count):
                    cluster.daemons.spawn(f"{launcher}.{number}", launcher)
            wait_until(
                lambda: cluster.daemons.status().daemons["running"] == COROUTINES + PROCESSES,
                within=2 * SOON,
                because="they were spawned",
            )
        yield cluster


@pytest.fixture
def cluster(shared: IntegrationCluster, request: pytest.FixtureRequest) -> Iterator[IntegrationCluster]:
    """The cluster, in which no test restarts or moves a daemon."""
    request.node.stash[RUNNING] = list(shared.workers.values())
    before = {record.name: record.token for record in shared.daemons.list()}
    yield shared
    assert {record.name: record.token for record in shared.daemons.list()} == before


@pytest.fixture
def tasks(cluster: IntegrationCluster) -> Any:
    """The module of the tasks."""
    return cluster.module


@pytest.fixture
def control(cluster: IntegrationCluster) -> Callable[..., Any]:
    """Send a control command, and return the answer of the one worker."""
    (worker,) = cluster.workers.values()

    def ask(command: str, **arguments: Any) -> Any:
        answers = cluster.module.app.control.broadcast(
            command, arguments=arguments, reply=True, timeout=SOON, limit=1, destination=[worker.node]
        )
        (answer,) = answers
        return answer[worker.node]

    return ask


# Canvas


def test_chains_pass_results_on(tasks: Any) -> None:
    assert chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4)).delay().get(timeout=SOON) == 10


def test_groups_return_results_in_order(tasks: Any) -> None:
    assert group(tasks.add.s(number, number) for number in range(20)).delay().get(timeout=SOON) == list(range(0, 40, 2))


def test_chords_call_their_body_once_all_are_done(tasks: Any) -> None:
    header = [tasks.add.s(number, 1) for number in range(20)]

    assert chord(header)(tasks.total.s()).get(timeout=SOON) == 210


def test_chains_of_groups_become_chords(tasks: Any) -> None:
    inner = group(tasks.add.s(1), tasks.add.s(2)) | tasks.total.s()
    flow = chain(tasks.add.s(1, 1), inner, group(tasks.add.s(10), tasks.add.s(20)), tasks.total.s())

    assert flow.delay().get(timeout=SOON) == 44


def test_a_chord_in_a_chord_is_counted_right(tasks: Any) -> None:
    inner = chord([tasks.add.s(1, 1), tasks.add.s(2, 2)], tasks.total.s())

    assert chord([inner, tasks.add.s(4, 4)], tasks.total.s())().get(timeout=SOON) == 14


def test_a_failing_header_fails_the_chord_and_calls_the_errback(cluster: IntegrationCluster, tasks: Any) -> None:
    body = tasks.total.s().on_error(tasks.report.s())

    result = chord([tasks.add.s(1, 1), tasks.fail.s("a header")])(body)

    with pytest.raises(Exception, match="a header"):
        result.get(timeout=SOON)
    wait_until(lambda: cluster.events("report"), within=SOON, because="the chord failed")


def test_a_replaced_task_has_the_result_of_its_substitute(tasks: Any) -> None:
    assert chain(tasks.replaced.s(1), tasks.add.s(100)).delay().get(timeout=SOON) == 112


# Tasks


def test_a_task_is_retried_until_it_succeeds(tasks: Any) -> None:
    assert tasks.stubborn.delay(3).get(timeout=SOON) == 3


def test_a_task_with_a_countdown_waits_for_it(tasks: Any) -> None:
    began = time.time()

    assert tasks.add.apply_async((1, 1), countdown=0.5).get(timeout=SOON) == 2
    assert time.time() - began >= 0.5


def test_an_error_reaches_the_caller_and_the_errback(cluster: IntegrationCluster, tasks: Any) -> None:
    result = tasks.fail.apply_async(("a task",), link_error=tasks.report.s())

    with pytest.raises(ValueError, match="a task"):
        result.get(timeout=SOON)
    wait_until(lambda: cluster.events("report", "ValueError('a task')"), within=SOON, because="the task failed")


def test_a_rejected_task_runs_once_and_an_ignored_one_has_no_result(cluster: IntegrationCluster, tasks: Any) -> None:
    tasks.rejected.delay()
    ignored = tasks.ignored.delay()

    cluster.wait_event("rejected", "runs")
    assert tasks.add.delay(1, 1).get(timeout=SOON) == 2
    cluster.wait_event("ignored", "runs")
    assert ignored.state == "PENDING"
    assert len(cluster.events("rejected")) == 1


def test_a_soft_time_limit_ends_a_task(tasks: Any) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.sleeping.apply_async((60,), soft_time_limit=1).get(timeout=SOON)


def test_a_rate_limit_spaces_tasks(tasks: Any) -> None:
    began = [result.get(timeout=SOON) for result in [tasks.limited.delay() for _ in range(6)]]

    # A bucket of four, then four per second.
    assert max(began) - min(began) >= 0.4


# Control


def test_a_waiting_task_is_revoked(tasks: Any, control: Callable[..., Any]) -> None:
    result = tasks.add.apply_async((1, 1), countdown=2)
    wait_until(lambda: result.id in str(control("scheduled")), within=SOON, because="the worker has received it")

    control("revoke", task_id=result.id)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=SOON)


def test_a_running_task_is_terminated_and_the_pool_goes_on(
    cluster: IntegrationCluster, tasks: Any, control: Callable[..., Any]
) -> None:
    seen = len(cluster.events("sleeping", "begins"))
    result = tasks.sleeping.delay(60)
    cluster.wait_event("sleeping", "begins", times=seen + 1)

    control("revoke", task_id=result.id, terminate=True)

    with pytest.raises(TaskRevokedError):
        result.get(timeout=SOON)
    assert tasks.add.delay(1, 1).get(timeout=SOON) == 2


def test_the_pool_grows_and_shrinks(tasks: Any, control: Callable[..., Any]) -> None:
    def size() -> int:
        return len(control("stats")["pool"]["processes"])

    control("pool_grow", n=1)
    wait_until(lambda: size() == 3, within=SOON, because="the pool grew")
    assert tasks.add.delay(1, 1).get(timeout=SOON) == 2
    control("pool_shrink", n=1)
    wait_until(lambda: size() == 2, within=SOON, because="the pool shrank")


def test_consumers_are_added_and_cancelled(
    cluster: IntegrationCluster, tasks: Any, control: Callable[..., Any]
) -> None:
    queue = f"{cluster.namespace}-more"

    def queues() -> set[str]:
        return {found["name"] for found in control("active_queues")}

    control("add_consumer", queue=queue)
    wait_until(lambda: queue in queues(), within=SOON, because="it was added")
    assert tasks.add.apply_async((1, 1), queue=queue).get(timeout=SOON) == 2
    control("cancel_consumer", queue=queue)
    wait_until(lambda: queue not in queues(), within=SOON, because="it was cancelled")
    assert cluster.namespace in queues()


def test_the_worker_answers_questions(tasks: Any, control: Callable[..., Any]) -> None:
    assert control("ping") == {"ok": "pong"}
    assert "proj.add" in control("registered")
    assert control("rate_limit", task_name="proj.add", rate_limit="100/s") == {"ok": "new rate limit set successfully"}
    assert tasks.add.delay(1, 1).get(timeout=SOON) == 2
    assert control("active") == []
