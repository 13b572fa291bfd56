"""A failure of the package, or a refusal of the broker, does not stop the worker's own tasks."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: The interpreter of the agent is a program in the project's folder, which a test can take away.
REPLACEABLE = (
    EVENT_LOG
    + """
import shlex, sys

interpreter = Path(FOLDER + "/python")
if not interpreter.exists() and not Path(FOLDER + "/gone").exists():
    interpreter.write_text(f'#!/bin/sh\\nexec {shlex.quote(sys.executable)} "$@"\\n')
    interpreter.chmod(0o755)
if "worker" in sys.argv:
    sys.executable = str(interpreter)

@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    await asyncio.Event().wait()

@app.task
def visit(number):
    note("visitor", "came", number=number)
"""
)


def test_a_worker_whose_agent_cannot_be_started_again_goes_on_with_its_tasks(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Attacks: the package could stop the worker's own tasks."""
    # Given a worker with a daemon, whose Python is replaced
    with IntegrationCluster(tmp_path, valkey, REPLACEABLE, pool="prefork") as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]
        cluster.spawn("one", "coroutine")
        interpreter = tmp_path / "python"
        (tmp_path / "gone").touch()
        interpreter.rename(tmp_path / "kept")
        folders = len(list(Path(worker._temporary).iterdir()))

        # When the agent dies
        os.kill(cluster.agent(worker).pid, signal.SIGKILL)
        wait_until(
            lambda: "starting the agent failed" in worker.output, within=SOON, because="the interpreter is not there"
        )
        for number in range(40):
            cluster.module.visit.delay(number)

        # Then every task runs, the reason is logged once, and no process or message accumulates
        wait_until(
            lambda: {entry["number"] for entry in cluster.events("visitor", "came")} == set(range(40)),
            within=SOON,
            because="the worker has nothing else to do",
        )
        assert worker.output.count("starting the agent failed") == 1
        assert "Connection to broker lost" not in worker.output
        assert len(list(Path(worker._temporary).iterdir())) <= folders

        # And when the interpreter is back, the daemon runs again
        (tmp_path / "kept").rename(interpreter)
        cluster.wait_event("one", "runs", times=2)


ROUTED = (
    EVENT_LOG
    + """
from kombu import Queue

app.conf.task_queues = [Queue(NAMESPACE)]
app.conf.task_create_missing_queues = False

@daemons.launcher
async def coroutine(ctx):
    await asyncio.Event().wait()

@app.task
def visit(number):
    note("visitor", "came", number=number)
"""
)


def test_a_task_is_sent_to_the_queue_of_a_node_by_name_where_missing_queues_are_not_created(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given an app in which a mistyped queue is an error
    with IntegrationCluster(tmp_path, valkey, ROUTED) as cluster:
        request.node.stash[RUNNING] = [cluster.worker("w1")]
        address = cluster.spawn("one", "coroutine")

        # When
        cluster.module.visit.apply_async([1], queue=address.queue)

        # Then
        cluster.wait_event("visitor", "came")


ENDING = (
    EVENT_LOG
    + """
@daemons.launcher
async def coroutine(ctx):
    await asyncio.Event().wait()

@daemons.launcher("stubborn", stop_grace=60)
async def stubborn(ctx):
    note(ctx.name, "runs")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

@coroutine.recovery_scanner
def many():
    for number in range(99):
        yield coroutine.spec(f"d.{number}")
"""
)


@pytest.mark.heavy
@pytest.mark.parametrize("attempt", range(3))
def test_workers_that_end_at_the_same_time_leave_no_daemon_behind(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest, attempt: int
) -> None:
    """The monitor assigns what one node releases to another node, which may be leaving already."""
    # Given
    with IntegrationCluster(tmp_path, valkey, ENDING) as cluster:
        workers = [cluster.worker(name) for name in ("w1", "w2", "w3")]
        request.node.stash[RUNNING] = workers
        names = [f"d.{number}" for number in range(99)]
        wait_until(lambda: len(cluster.running(*names)) == 99, within=SOON, because="the scanner lists them")

        # When
        for worker in workers:
            worker.terminate()
        wait_until(lambda: not any(worker.running for worker in workers), within=SOON, because="each got SIGTERM")

        # Then every node has left, and no daemon waits for the end of a lease
        assert cluster.daemons.nodes() == []
        assert {record.status for record in cluster.daemons.list()} == {"pending"}
        assert not any("behind" in worker.output for worker in workers)


def test_the_second_ctrl_c_kills_a_daemon_that_does_not_stop_and_leaves_nothing_behind(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given
    with IntegrationCluster(tmp_path, valkey, ENDING, settings={"drain_timeout": 50.0}, pool="prefork") as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]
        cluster.spawn("mule", "stubborn")
        agent = cluster.agent(worker)

        # When
        worker.signal(signal.SIGINT)

        # Then the log says what is awaited
        wait_until(
            lambda: "for mule to stop; a second Ctrl-C kills them" in worker.output,
            within=SOON,
            because="a drain takes longer than a second",
        )
        assert worker.running

        # When
        worker.signal(signal.SIGINT)
        wait_until(lambda: not worker.running, within=10, because="the second Ctrl-C does not wait")

        # Then nothing is left, neither a process nor a daemon that waits for the lease
        assert not agent.is_running()
        assert cluster.daemons.nodes() == []
        assert cluster.record("mule").status == "pending"
