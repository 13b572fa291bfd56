"""The Django app of the package: discovery, system checks, ``manage.py daemons`` and spawning at the commit."""

import subprocess
import sys

import pytest

from tests.conftest import NewProject
from tests.support.django_projects import CELERY, CONTRIB, SETUP, add_django
from tests.support.projects import COMMAND_LIMIT, Project
from tests.support.servers import Server

DAEMONS = """
from proj import daemons

@daemons.launcher("feed")
def feed(ctx, shop_id):
    ctx.stopping.wait()
"""

ON_COMMIT = """
from django.core.management import call_command
from django.db import transaction
from celery_daemons import ConfigurationError, InvalidName
from celery_daemons.contrib.django import spawn_on_commit
from shop.daemons import feed

call_command("migrate", run_syncdb=True, verbosity=0)
names = lambda: sorted(record.name for record in proj.daemons.list())

with transaction.atomic():
    spawn_on_commit(feed, "committed", shop_id=1)
    print(names())
print(names())
try:
    with transaction.atomic():
        spawn_on_commit(feed, "rolled-back", shop_id=1)
        raise LookupError
except LookupError:
    print(names())
spawn_on_commit(feed, "outside", 1)
print(names())
for error, name, arguments in (
    (InvalidName, "no name", {"shop_id": 1}),
    (ConfigurationError, "wrong", {"shop": 1}),
    (ConfigurationError, "wrong", {"shop_id": object()}),
):
    try:
        with transaction.atomic():
            spawn_on_commit(feed, name, **arguments)
            print("accepted")
    except error:
        print("refused")
"""


SLOW_QUERY = """
import asyncio, threading
from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connection
from celery_daemons import DaemonContext

def is_open():
    return connection.connection is not None

async def main():
    await sync_to_async(connection.ensure_connection)()
    sent, answers = threading.Event(), threading.Event()

    def slow_query():
        sent.set()
        answers.wait()

    query = asyncio.create_task(sync_to_async(slow_query)())
    await asyncio.to_thread(sent.wait)
    contexts = [DaemonContext(f"d.{number}", "feed", "w1", 1, asyncio.Event()) for number in range(100)]
    await asyncio.gather(*(ctx.sleep(0.001) for ctx in contexts))
    print("slept", "waiting calls:", SyncToAsync.single_thread_executor._work_queue.qsize())
    answers.set()
    await query
    print("open:", await sync_to_async(is_open)())

asyncio.run(main())
"""


def manage(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``manage.py`` to its end, whatever its exit status."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project.folder,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT,
        check=False,
    )


@pytest.fixture
def project(new_project: NewProject, valkey: Server) -> Project:
    """A Django project on SQLite, without workers."""
    project = new_project(CELERY, settings={"redis_url": valkey.url})
    add_django(project, DAEMONS)
    return project


def test_a_daemon_is_spawned_when_the_transaction_is_committed(project: Project) -> None:
    done = project.python(SETUP + ON_COMMIT)

    assert done.splitlines() == [
        "[]",
        "['committed']",
        "['committed']",
        "['committed', 'outside']",
        "refused",
        "refused",
        "refused",
    ]


@pytest.mark.heavy
def test_manage_py_has_the_commands_of_celery(project: Project) -> None:
    # The modules of installed apps are imported: the launcher is known
    spawned = manage(
        project, "daemons", "spawn", "feed", "one", "--kwargs", '{"shop_id": 1}', "--settings=site_settings"
    )
    assert (spawned.returncode, "daemon one: recorded" in spawned.stdout) == (0, True), spawned.stderr

    listed = manage(project, "daemons", "list", "--json")
    assert '"name": "one"' in listed.stdout

    # Exit statuses are those of the command line, for call_command too
    unknown = manage(project, "daemons", "locate", "two")
    assert unknown.returncode == 1
    assert manage(project, "daemons", "list", "--no-such-option").returncode == 2
    called = project.python(
        SETUP + "from django.core.management import CommandError, call_command\n"
        "call_command('daemons', 'list', '--json')\n"
        "try:\n    call_command('daemons', 'locate', 'two')\n"
        "except CommandError as error:\n    print('status', error.returncode)"
    )
    assert '"name": "one"' in called
    assert called.splitlines()[-1] == "status 1"


def test_the_checks_pass_without_redis(new_project: NewProject) -> None:
    project = new_project(CELERY, settings={"redis_url": "redis://127.0.0.1:1/0"})
    add_django(project, DAEMONS)

    done = manage(project, "check", "--deploy")

    assert done.returncode == 0, done.stderr
    assert "celery_daemons." not in done.stderr


@pytest.mark.parametrize(
    ("source", "check"),
    [
        ("import celery\n", "celery_daemons.E001"),
        (CELERY + "daemons._overrides['lease_ttl'] = -1\n", "celery_daemons.E002"),
        (CELERY + "app.conf.task_always_eager = True\n", "celery_daemons.W001"),
    ],
    ids=["no app", "wrong setting", "recorded only"],
)
def test_a_check_finds_what_is_wrong(new_project: NewProject, source: str, check: str) -> None:
    project = new_project(source, settings={"redis_url": "redis://127.0.0.1:1/0"})
    add_django(project, "", installed=(CONTRIB,))

    done = manage(project, "check", "--deploy", "--fail-level", "WARNING")

    assert done.returncode == 1
    assert f"({check})" in done.stderr


def test_coroutine_daemons_do_not_wait_for_a_slow_query_of_another(project: Project) -> None:
    """Attacks: with a call for each sleep, calls would queue behind the query, or every daemon would wait for it."""
    done = project.python(SETUP + SLOW_QUERY)

    assert done.splitlines() == ["slept waiting calls: 1", "open: False"]
