"""Daemons run under a managed Redis, a reloader, the app's own logging, and libraries that patch Python."""

from pathlib import Path

import psutil
import pytest

from tests.conftest import RUNNING, NewServer
from tests.support.clusters import EVENT_LOG, NOTED_RUNS, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

#: True in the worker's processes; the tests import the module too, and must not be patched by it.
HEAD = EVENT_LOG + 'IN_WORKER = "CELERY_DAEMONS_TEST" in os.environ\n'

FEED = """
@daemons.launcher
async def feed(ctx):
    note(ctx.name, "runs")
    try:
        await ctx.stopping.wait()
    finally:
        note(ctx.name, "ends")
"""

RELOADER = """
import sys, threading

def reload():
    while not os.path.exists(FOLDER + "/changed"):
        time.sleep(0.05)
    os.remove(FOLDER + "/changed")
    os.execv(sys.executable, [sys.executable, "-m", "celery", *sys.argv[1:]])

if IN_WORKER and "worker" in sys.argv:
    threading.Thread(target=reload, daemon=True).start()
"""

OWN_SETTINGS = """
import logging, logging.handlers
from celery import Task
from celery.signals import setup_logging

class OwnTask(Task):
    def __call__(self, *args, **kwargs):
        note("own task", "called")
        return super().__call__(*args, **kwargs)

app.Task = OwnTask
app.conf.update(
    timezone="Asia/Tokyo",
    enable_utc=False,
    task_serializer="yaml",
    accept_content=["yaml"],
    task_protocol=1,
    worker_hijack_root_logger=False,
)

@setup_logging.connect
def configure(**_):
    handler = logging.handlers.WatchedFileHandler(FOLDER + "/own.log")
    handler.setFormatter(logging.Formatter("own format: %(message)s"))
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("[%(asctime)s] %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    root.addHandler(console)

@app.task
def visit():
    note("visitor", "came")

@daemons.launcher
async def feed(ctx):
    ctx.log.info("%s logs before", ctx.name)
    while not os.path.exists(FOLDER + "/rotated"):
        await ctx.sleep(0.05)
    ctx.log.info("%s logs after", ctx.name)
    await ctx.stopping.wait()

@feed.recovery_scanner
def scan():
    logging.getLogger("scanner").info("scanner logs")
    yield feed.spec("feed")
"""

NESTED = """
if IN_WORKER:
    import nest_asyncio
    nest_asyncio.apply()

@daemons.launcher
async def nested(ctx):
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))
    await coroutine(ctx)
"""

ENDS_WELL = (
    NOTED_RUNS
    + """
@daemons.launcher(isolation="process", restart="transient")
async def logs_off(ctx):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    note(ctx.name, "runs")
    try:
        await stop.wait()
    finally:
        note(ctx.name, "ends")
"""
)


def test_daemons_run_on_a_managed_redis_that_hides_commands_and_closes_idle_connections(
    new_server: NewServer, valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Node-redis #628, redis_exporter #13."""
    # Given an address book on such a server, and a broker elsewhere
    hidden = [f'rename-command {command} ""' for command in ("CONFIG", "SCRIPT", "DEBUG", "KEYS", "MONITOR")]
    server = new_server("timeout 1", *hidden, flavour="redis")
    with IntegrationCluster(tmp_path, server, HEAD + FEED, broker_url=valkey.url) as cluster:
        request.node.stash[RUNNING] = [cluster.worker()]
        address = cluster.spawn("feed", "feed")

        # When the server has closed the connections of this client
        def closed() -> bool:
            found = psutil.Process().net_connections()
            return any(c.status == psutil.CONN_CLOSE_WAIT and c.raddr and c.raddr.port == server.port for c in found)

        wait_until(closed, within=SOON, because="this client asks nothing")

        # Then it asks again, and the daemon has run all the time
        assert cluster.daemons.locate("feed") == address
        cluster.daemons.stop("feed", wait=SOON)
        assert [entry["event"] for entry in cluster.events("feed")] == ["runs", "ends"]


def test_a_worker_that_replaces_itself_by_exec_is_a_node_again_and_runs_nothing_twice(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Attacks invariant 1: the process of the worker continues, and only its sockets show its end to the agent."""
    # Given
    with IntegrationCluster(tmp_path, valkey, HEAD + RELOADER + FEED) as cluster:
        worker = cluster.worker()
        request.node.stash[RUNNING] = [worker]
        before = cluster.spawn("feed", "feed")
        agent = cluster.agent(worker)

        # When
        (tmp_path / "changed").touch()

        # Then
        after = cluster.wait_restarted(before)
        (node,) = cluster.daemons.nodes()
        assert node.pid == worker.pid
        assert agent.status() == psutil.STATUS_ZOMBIE  # the new program of its parent does not know it
        assert after.pid != before.pid
        assert [entry["event"] for entry in cluster.events("feed")] == ["runs", "ends", "runs"]


def test_logging_serializers_time_zone_and_task_class_of_an_app_hold_beside_daemons(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given
    log = tmp_path / "own.log"
    with IntegrationCluster(tmp_path, valkey, HEAD + OWN_SETTINGS) as cluster:
        request.node.stash[RUNNING] = [cluster.worker()]

        # Then daemons and scanners log as the app has configured it
        wait_until(lambda: cluster.running("feed"), within=SOON, because="the scanner lists it")
        for text in ("feed logs before", "scanner logs"):
            wait_until(
                lambda text=text: f"own format: {text}\n" in log.read_text(), within=SOON, because="it is logged"
            )

        # When the file is rotated
        log.rename(tmp_path / "own.log.1")
        (tmp_path / "rotated").touch()

        # Then
        wait_until(
            lambda: log.exists() and "own format: feed logs after\n" in log.read_text(),
            within=SOON,
            because="the handler opens the file again",
        )

        # When a task is sent to the node of the daemon
        address = cluster.daemons.locate("feed")
        assert address is not None
        cluster.module.visit.apply_async(queue=address.queue)

        # Then it runs as any other task of the app
        cluster.wait_event("visitor", "came")
        assert len(cluster.events("own task")) == 1


@pytest.mark.parametrize("what", ["plain", "nest_asyncio", "eventlet"])
def test_daemons_of_every_kind_run_and_stop_gracefully_under_libraries_that_patch_python(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest, what: str
) -> None:
    """Temporal's sdk-python #59, gevent #1812."""
    # Given
    nested = what == "nest_asyncio"
    source = HEAD + ENDS_WELL + (NESTED if nested else "")
    pool = "eventlet" if what == "eventlet" else "solo"
    with IntegrationCluster(tmp_path, valkey, source, pool=pool) as cluster:
        request.node.stash[RUNNING] = [cluster.worker()]

        # When
        kinds = ["coroutine", "function", "threaded", "logs_off", *(["nested"] if nested else [])]
        for kind in kinds:
            cluster.spawn(kind, kind)
            cluster.wait_event(kind, "runs")
            cluster.daemons.restart(kind, wait=SOON)
            cluster.wait_event(kind, "runs", times=2)
            cluster.daemons.stop(kind, wait=SOON)

        # Then
        for kind in kinds:
            assert [entry["event"] for entry in cluster.events(kind)] == ["runs", "ends"] * 2, kind
        assert "did not stop within its grace" not in cluster.workers["w1"].output
