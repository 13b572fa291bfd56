"""What apps do when they are imported, and what their processes inherit: with Celery, Django and gevent."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import CeleryProcess, Worker

pytestmark = pytest.mark.heavy

#: True in the worker's processes; the tests import the module too, and must not be patched by it.
IN_WORKER = 'IN_WORKER = "CELERY_DAEMONS_TEST" in os.environ\n'
HEAD = EVENT_LOG + IN_WORKER

SIGNALS = """
from celery.signals import worker_process_init, worker_process_shutdown
ready = {}

@worker_process_init.connect
def connect(**_):
    ready["pid"] = os.getpid()
    note("signal", "init")

@worker_process_shutdown.connect
def disconnect(pid, exitcode, **_):
    note("signal", "shutdown", code=exitcode)

@daemons.launcher
def isolated(ctx):
    print("printed by a process")
    note(ctx.name, "runs", ready=ready)
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=print, args=("printed by a child",))
    child.start()
    child.join()
    ctx.stopping.wait()

@daemons.launcher
async def shared(ctx):
    print("printed by a coroutine")
    note(ctx.name, "runs", ready=ready)
    await ctx.stopping.wait()

@isolated.recovery_scanner
def scan():
    print("printed by a scanner")
    note("scanner", "runs", ready=ready)
    yield isolated.spec("isolated")
    yield shared.spec("shared")
"""

CONNECTIONS = """
import socket
from urllib.parse import urlsplit
import django
from django.conf import settings

if IN_WORKER:
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER + "/db"}})
    django.setup()
    from django.db import connection
    connection.cursor().execute("select 1")
    at = urlsplit(BROKER_URL)
    opened = socket.create_connection((at.hostname, at.port))
    app.control.ping(timeout=0.1)

app.conf.result_backend = BROKER_URL

@app.task
def hello():
    note("task", "runs")

@app.task
def add(x, y):
    return x + y

if IN_WORKER:
    add.delay(1, 2)

@daemons.launcher
def asks(ctx):
    for number in range(10):
        assert add.delay(number, number).get(timeout=10) == 2 * number
    note(ctx.name, "has answers")
    ctx.stopping.wait()

@daemons.launcher
def isolated(ctx):
    note(ctx.name, "runs", django=connection.connection is None)
    ctx.stopping.wait()

@daemons.launcher
async def shared(ctx):
    note(ctx.name, "runs")
    await ctx.stopping.wait()

@shared.recovery_scanner
def scan():
    yield shared.spec("shared")
"""

STUCK = """
if IN_WORKER:
    os.register_at_fork(after_in_child=lambda: time.sleep(1000))
"""

BUSY = """
import ctypes, sys
if IN_WORKER and "worker" not in sys.argv:
    from gevent import monkey
    monkey.patch_all()

from celery.signals import worker_process_init

@worker_process_init.connect
def load_much(**_):
    time.sleep(2.5)

@daemons.launcher(stop_grace=20)
def busy(ctx):
    note(ctx.name, "runs")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        sum(range(10000))
    note(ctx.name, "is done")
    while not ctx.stopping.is_set():
        ctx.sleep(0.1)
    note(ctx.name, "stops")

@daemons.launcher(stop_grace=20)
def waits(ctx):
    note(ctx.name, "runs")
    ctx.stopping.wait()
    note(ctx.name, "stops")

@daemons.launcher(backoff=60)
def seizes(ctx):
    ctypes.PyDLL(None).sleep(60)
"""


def test_every_process_sends_the_process_signals_of_celery_and_logs_what_is_printed(
    tmp_path: Path, valkey: Server
) -> None:
    # Given
    log = tmp_path / "worker.log"
    with IntegrationCluster(tmp_path, valkey, HEAD + SIGNALS) as cluster, ExitStack() as workers:
        # When
        arguments = ["worker", "--hostname", "w1@test", "--pool", "solo", "--logfile", str(log), "--loglevel", "INFO"]
        worker = workers.enter_context(CeleryProcess(cluster.project, "w1", arguments, ready=r"\[tasks\]"))
        runs = [cluster.wait_event(name, "runs") for name in ("isolated", "shared", "scanner")]

        # Then before anything else of the app ran there
        assert [entry["ready"] for entry in runs] == [{"pid": entry["pid"]} for entry in runs]
        assert len({entry["pid"] for entry in runs}) == 3
        texts = [f"printed by a {what}" for what in ("process", "child", "coroutine", "scanner")]
        wait_until(lambda: all(text in log.read_text() for text in texts), within=SOON, because="it is printed")

        # When
        worker.stop()

        # Then hosts have sent the signal of the shutdown
        ended = {entry["pid"]: entry["code"] for entry in cluster.events("signal", "shutdown")}
        assert {runs[0]["pid"]: 0, runs[1]["pid"]: 0}.items() <= ended.items()


def test_connections_that_an_app_opens_at_import_are_closed_or_named_and_daemons_run(
    tmp_path: Path, valkey: Server
) -> None:
    """Attacks invariant 2: a fork would wait for the answer to a command of its parent."""
    # Given
    with IntegrationCluster(tmp_path, valkey, HEAD + CONNECTIONS) as cluster:
        worker = cluster.worker()

        # When
        cluster.spawn("isolated", "isolated")
        cluster.module.hello.delay()

        # Then
        assert cluster.wait_event("isolated", "runs")["django"] is True
        cluster.wait_event("shared", "runs")
        cluster.wait_event("task", "runs")

        # When two processes wait for results at once, then neither receives those of the other
        names = ["asks-1", "asks-2"]
        for name in names:
            cluster.daemons.spawn(name, "asks")
        for name in names:
            cluster.wait_event(name, "has answers")
            assert cluster.record(name).restarts == 0
        assert f"every daemon's process inherits them: 127.0.0.1:{valkey.port};" in worker.output


def test_a_process_that_does_not_reach_its_role_is_reported(tmp_path: Path, valkey: Server) -> None:
    # Given
    with IntegrationCluster(tmp_path, valkey, HEAD + STUCK) as cluster, ExitStack() as workers:
        # When
        worker = workers.enter_context(Worker(cluster.project, pool="solo", options=["--without-mingle"]))

        # Then
        wait_until(
            lambda: "did not reach its role within 5 s after the fork, killed" in worker.output,
            within=SOON,
            because="a hook waits after each fork",
        )


def test_a_busy_daemon_keeps_its_lease_where_gevent_has_patched_the_interpreter(tmp_path: Path, valkey: Server) -> None:
    # Given
    brief = {"lease_ttl": 1.5, "heartbeat_interval": 0.3}
    with IntegrationCluster(tmp_path, valkey, HEAD + BUSY, settings=brief) as cluster:
        cluster.worker()

        # When its process takes longer than a lease to prepare, and the daemon computes for three leases
        cluster.spawn("busy", "busy")
        cluster.spawn("waits", "waits")
        cluster.wait_event("busy", "is done")

        # Then its host lives, and receives a stop
        assert len(cluster.events("busy", "runs")) == 1
        for name in ("busy", "waits"):
            cluster.daemons.stop(name, wait=SOON)
            cluster.wait_event(name, "stops")

        # When one holds the GIL for longer than its lease
        cluster.daemons.spawn("seizes", "seizes")

        # Then the cause of its end is named
        wait_until(lambda: "held the GIL" in (cluster.record("seizes").error or ""), within=SOON, because="it ends")
        assert "SIGALRM" in (cluster.record("seizes").error or "")
