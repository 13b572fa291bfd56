"""Temporary Django projects: the Celery app ``proj``, settings, and an app ``shop`` with a table of shops."""

import json
from pathlib import Path
from typing import Any, Protocol

from tests.support.projects import Project

CELERY = """\
import json, os, threading
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from celery import Celery
from celery_daemons import Daemons

app = Celery("proj", broker=BROKER_URL)
app.conf.update(task_default_queue=NAMESPACE, broker_connection_retry_on_startup=True)
app.autodiscover_tasks()
daemons = Daemons(app, namespace=NAMESPACE, **SETTINGS)

def note(name, event, **more):
    entry = {"name": name, "event": event, "pid": os.getpid(), **more}
    with open(FOLDER + "/events", "a") as events:
        events.write(json.dumps(entry) + "\\n")
"""

MODELS = """\
from django.db import models

class Shop(models.Model):
    name = models.CharField(max_length=50)
    polls = models.IntegerField(default=0)
"""

MANAGE = """\
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

#: The first lines of a program that uses the models.
SETUP = "import proj, django\ndjango.setup()\nfrom shop.models import Shop\n"

CONTRIB = "celery_daemons.contrib.django"

#: Daemons and scanners of every kind. A daemon plays the rounds up to the number in the file ``rounds``.
ROUNDS = """
import asyncio
from pathlib import Path
from asgiref.sync import sync_to_async
from django.db import OperationalError, InterfaceError
from proj import FOLDER, daemons, note
from shop.models import Shop

def wanted():
    path = Path(FOLDER, "rounds")
    return int(path.read_text() or 0) if path.exists() else 0

def work(name, number):
    try:
        note(name, "works" if Shop.objects.count() == 2 else "is wrong", round=number)
    except (OperationalError, InterfaceError) as error:
        note(name, "fails", round=number, error=str(error))

def rounds(ctx):
    done = 0
    while not ctx.stopping.is_set():
        if wanted() > done:
            done += 1
            work(ctx.name, done)
        ctx.sleep(0.05)

@daemons.launcher
def process(ctx):
    rounds(ctx)

@daemons.launcher(isolation="thread")
def thread(ctx):
    rounds(ctx)

@daemons.launcher
async def coroutine(ctx):
    done = 0
    while True:
        if wanted() > done:
            done += 1
            await sync_to_async(work)(ctx.name, done)
        await ctx.sleep(0.05)

@daemons.launcher
async def beats(ctx):
    done = 0
    while True:
        if wanted() > done:
            done += 1
            await sync_to_async(work)(ctx.name, done)
        ctx.beat()
        await asyncio.sleep(0.05)

@daemons.launcher(isolation="process")
async def alone(ctx):
    await coroutine(ctx)

@daemons.launcher(backoff=0.1, backoff_max=0.1, max_restarts=1000)
async def restarts(ctx):
    done = 0
    while True:
        if wanted() > done:
            done += 1
            note(ctx.name, "works" if await Shop.objects.acount() == 2 else "is wrong", round=done)
        await asyncio.sleep(0.05)

@process.recovery_scanner
def plain():
    note("plain", "lists", shops=Shop.objects.count())
    for launcher in ("process", "thread", "coroutine", "beats", "alone", "restarts"):
        yield daemons.launchers[launcher].spec(launcher)

@thread.recovery_scanner
async def awaited():
    note("awaited", "lists", shops=await Shop.objects.acount())
    return []

@coroutine.recovery_scanner
async def generated():
    note("generated", "lists", shops=len([shop async for shop in Shop.objects.all()]))
    for _ in ():
        yield None
"""


class NewDjango(Protocol):
    """Writes a Django project with tables; the options are those of ``DATABASES``."""

    def __call__(
        self,
        daemons: str,
        *,
        installed: tuple[str, ...] = (CONTRIB,),
        more: dict[str, str] | None = None,
        **options: Any,
    ) -> Project: ...


def add_django(
    project: Project,
    daemons: str,
    *,
    database: dict[str, Any] | None = None,
    installed: tuple[str, ...] = (CONTRIB,),
    more: dict[str, str] | None = None,
) -> None:
    """Add Django's part to a project whose source is :data:`CELERY`; ``daemons`` is the source of ``shop/daemons.py``.

    Without ``database``, the project uses a file of SQLite.
    """
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(project.folder / "shop.sqlite3")}
    settings = {
        "SECRET_KEY": "x",
        "USE_TZ": True,
        "INSTALLED_APPS": [*installed, "shop"],
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "DATABASES": {"default": database or sqlite},
    }
    files = {
        "site_settings.py": "import proj\n" + "".join(f"{name} = {value!r}\n" for name, value in settings.items()),
        "manage.py": MANAGE,
        "shop/__init__.py": "",
        "shop/models.py": MODELS,
        "shop/daemons.py": daemons,
        **(more or {}),
    }
    for name, source in files.items():
        path = Path(project.folder / name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)


def create_tables(project: Project) -> None:
    """Create the tables of the project, and two shops."""
    project.python(
        SETUP + "from django.core.management import call_command\n"
        "call_command('migrate', run_syncdb=True, verbosity=0)\n"
        "Shop.objects.create(name='amsterdam'); Shop.objects.create(name='lisbon')"
    )


def events(project: Project, name: str, event: str | None = None) -> list[dict[str, Any]]:
    """Return the logged events of a daemon or scanner, oldest first."""
    path = project.folder / "events"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [one for one in entries if one["name"] == name and event in (None, one["event"])]
