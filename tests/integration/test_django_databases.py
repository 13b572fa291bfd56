"""Django's connections to PostgreSQL in daemons and scanners: they are closed in time, and never shared."""

from typing import Any

import pytest

from tests.conftest import NewWorker
from tests.support.django_projects import CONTRIB, ROUNDS, SETUP, NewDjango, events
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

#: Seconds within which everything here happens, even on a busy build machine.
SOON = 60.0
#: Connections that a worker with shared hosts may hold at once: one for each kind of thread in each process.
FEW = 12

STARTS = """
import asyncio
from asgiref.sync import sync_to_async
from django.db.models import F
from proj import daemons
from shop.models import Shop

QUICK = dict(backoff=0.001, backoff_max=0.001, max_restarts=1_000_000)

def poll(name):
    Shop.objects.filter(name=name).update(polls=F("polls") + 1)

@daemons.launcher(isolation="thread", **QUICK)
def thread(ctx):
    poll("amsterdam")

@daemons.launcher(**QUICK)
async def coroutine(ctx):
    await sync_to_async(poll)("lisbon")

@daemons.launcher(**QUICK)
def process(ctx):
    Shop.objects.create(name=ctx.name)

@process.recovery_scanner
def scan():
    for launcher in ("thread", "coroutine", "process"):
        yield daemons.launchers[launcher].spec(launcher)
"""


@pytest.mark.timeout(300)
def test_a_thousand_starts_leave_as_many_connections_as_one(
    django_project: NewDjango, new_worker: NewWorker, postgresql: PostgreSQL
) -> None:
    # Given daemons that end after one query, and start again
    project = django_project(STARTS)
    most = 0

    # When
    new_worker(project)

    def enough() -> bool:
        nonlocal most
        most = max(most, postgresql.connections())
        return bool(postgresql.value("select min(polls) >= 500 from shop_shop where name in ('amsterdam', 'lisbon')"))

    wait_until(enough, within=2 * SOON, because="the daemons start again at once", interval=0.2)

    # Then
    assert postgresql.value("select count(*) from shop_shop where name = 'process'") > 5
    assert most <= FEW


SCANS = """
import gc, json, time
from types import SimpleNamespace
from celery_daemons.domain.names import Epoch
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings
from celery_daemons.store.keys import Keys
import shop.daemons

gc.disable()
reports = []

def run(call):
    if call.verb == "scanned":
        reports.append(call)
    return ["new"] * len(json.loads(call.args[0])) if call.verb == "want" else True

snapshot = SimpleNamespace(specs={})
scans = Scans(
    registry=proj.daemons.launchers,
    settings=Settings(redis_url=""),
    store=SimpleNamespace(run=run, keys=Keys("test")),
    epoch=Epoch(1),
    snapshot=snapshot,
    tally=ClusterTally(enabled=False, snapshot=snapshot, report=print, clock=time.monotonic),
    clock=time.monotonic,
)
def connected():
    query = "select 1 as id, count(*) as total from pg_stat_activity where backend_type = 'client backend'"
    return Shop.objects.raw(query)[0].total

seen = []
for number in range(334):
    scans.request(None)
    scans.run_due()
    while len(reports) < 3 * (number + 1) or scans._running:
        time.sleep(0.001)
    if number % 50 == 3:
        for thread in list(scans._threads.values()):
            thread.join()
        # The server needs a moment to end a session.
        deadline = time.monotonic() + 20
        while connected() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(connected())
print(len(reports), *seen)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("installed", [(CONTRIB,), ()], ids=["with the integration", "without"])
def test_a_thousand_scans_leave_no_connection(django_project: NewDjango, installed: tuple[str, ...]) -> None:
    """Celery's own closing of connections covers tasks only."""
    project = django_project(ROUNDS, installed=installed, CONN_MAX_AGE=None)

    count, *seen = project.python(SETUP + SCANS, within=4 * SOON).split()

    assert int(count) >= 1000
    assert set(seen) == {"1"}, "the connection that counts is the only one"


SHARED = """
from django.db import connection
from proj import daemons, note

@daemons.launcher
def asks(ctx, number):
    for _ in range(300):
        with connection.cursor() as cursor:
            cursor.execute("select %s::int", [number])
            (answer,) = cursor.fetchone()
        if answer != number:
            note(ctx.name, f"asked for {number}, got {answer}")
            return
    note(ctx.name, "has its own answers", number=number)
    ctx.stopping.wait()

@asks.recovery_scanner
def three():
    for number in (1, 2, 3):
        yield asks.spec(f"asks-{number}", number)
"""

READY = """
from django.apps import AppConfig

class ShopConfig(AppConfig):
    name = "shop"
    def ready(self):
        from django.db import connection
        connection.cursor().execute("select 1")
"""


@pytest.mark.parametrize("options", [{}, {"OPTIONS": {"pool": True}}], ids=["connection", "pool"])
def test_a_connection_that_an_app_opens_when_it_is_ready_is_not_shared_by_daemons(
    django_project: NewDjango, new_worker: NewWorker, options: dict[str, Any]
) -> None:
    """Forks that use one connection read each other's answers."""
    # Given
    project = django_project(SHARED, more={"shop/apps.py": READY}, **options)

    # When
    worker = new_worker(project)

    # Then
    for number in (1, 2, 3):
        wait_until(lambda number=number: events(project, f"asks-{number}"), within=SOON, because="it runs")  # type: ignore[misc]
        assert [one["event"] for one in events(project, f"asks-{number}")] == ["has its own answers"]
    assert "every daemon's process inherits them" not in worker.output


KEPT = """
from django.db import connection, transaction
from proj import daemons, note

@daemons.launcher(isolation="thread")
def thread(ctx):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        before = cursor.fetchone()
        for _ in range(3):
            ctx.sleep(0.01)
            ctx.beat()
        cursor.execute("select pg_backend_pid()")
        note("thread", "is done", same=before == cursor.fetchone())
    ctx.stopping.wait()

@thread.recovery_scanner
def scan():
    yield thread.spec("thread")
"""


def test_a_daemon_keeps_its_connection_inside_a_transaction(django_project: NewDjango, new_worker: NewWorker) -> None:
    project = django_project(KEPT)

    new_worker(project)

    wait_until(lambda: events(project, "thread"), within=SOON, because="it runs")
    assert events(project, "thread", "is done")[0]["same"] is True
