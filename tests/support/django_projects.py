"""Temporary Django projects: the Celery app ``proj``, settings, and an app ``shop`` with a table of shops."""

from pathlib import Path
from typing import Any

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
