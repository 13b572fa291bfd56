"""The programs in the documentation run: the tutorial with its output, and the recipes of the how-to pages."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_daemons import Address, AddressBook
from tests.conftest import NewProject, NewServer, NewWorker
from tests.support.background_shell import shell
from tests.support.pages import DOCS, README, ROOT, blocks
from tests.support.projects import Project
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Its programs start one worker after another, which takes about two minutes.
pytestmark = pytest.mark.heavy

TUTORIAL = DOCS / "tutorial" / "first-daemon.md"
FILE = re.compile(r"# (\S+\.py)\n")

#: Seconds for a worker to start and its daemons to run, on a loaded machine.
RUNS_WITHIN = 60.0
#: Seconds for a program that ends by itself.
ENDS_WITHIN = 110.0


def files(page: Path) -> dict[str, str]:
    """Return the files of a page by path: the Python blocks that begin with a comment that names one."""
    return {named.group(1): code for code in blocks(page, "python") if (named := FILE.match(code))}


def write(folder: Path, found: dict[str, str]) -> None:
    """Write files into a folder."""
    for path, code in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)


def commands(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the commands of a page's console blocks, each with the lines of output that the page shows."""
    for block in blocks(page, "console"):
        for part in filter(None, re.split(r"^\$ ", block, flags=re.MULTILINE)):
            command, *output = part.rstrip("\n").split("\n")
            yield shlex.split(command), output


def shape(line: str) -> str:
    """Return a line without what differs between runs: names of nodes, numbers, widths of columns."""
    return " ".join(re.sub(r"\d+", "N", re.sub(r"w\d@\S+", "NODE", line)).split())


@pytest.fixture
def server(new_server: NewServer, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server of the test, which takes precedence over the URLs in the programs."""
    server = new_server()
    monkeypatch.setenv("CELERY_BROKER_URL", server.url)
    monkeypatch.setenv("CELERY_RESULT_BACKEND", server.url)
    return server


@pytest.fixture
def recipe(server: Server, new_project: NewProject) -> Callable[..., Project]:
    """Write the files of a page, and more files, into a project."""

    def make(page: Path, *, module: str = "proj", more: dict[str, str] | None = None) -> Project:
        project = new_project("", broker_url=server.url)
        (project.folder / "proj.py").unlink()
        write(project.folder, {**(more or {}), **files(page)})
        project.module = module
        return project

    return make


def wait_running(server: Server, *names: str, app: str = "proj") -> list[Address]:
    """Wait until daemons of the app with the main name ``app`` run, and return the addresses."""
    with AddressBook.connect(server.url, f"celery-daemons.{app}") as book:
        return [book.wait_for(name, timeout=RUNS_WITHIN) for name in names]


def test_the_tutorial_gives_the_output_that_it_shows(
    recipe: Callable[..., Project], server: Server, new_worker: NewWorker
) -> None:
    # Given
    project = recipe(TUTORIAL)
    workers = [new_worker(project, name) for name in ("w1", "w2")]
    wait_running(server, "ticker.red", "ticker.green", "ticker.blue")
    seen = []

    for command, shown in commands(TUTORIAL):
        # When
        if command[0] == "kill":
            (before,) = wait_running(server, "ticker.mine")
            next(worker for worker in workers if worker.node == before.node).kill()
            with AddressBook.connect(server.url, "celery-daemons.proj") as book:
                wait_until(
                    lambda book=book, node=before.node: (  # type: ignore[misc]
                        (found := book.locate("ticker.mine")) and found.node != node and found.status == "running"
                    ),
                    within=RUNS_WITHIN,
                    because="its worker was killed",
                )
            continue
        assert command[:3] == ["celery", "-A", "proj"]
        done = project.celery(*command[3:])
        # Then
        printed = (done.stdout or done.stderr).splitlines()
        seen.append(command[4])
        assert printed, command
        if command[4] == "status":
            assert [line.split()[0] for line in printed] == [line.split()[0] for line in shown]
        elif command[4] == "describe":
            assert "last events" in printed
            assert {line.split()[2] for line in shown if ticked(line)} <= {
                line.split()[2] for line in printed if ticked(line)
            }
        else:
            assert shape(printed[0]) == shape(shown[0])
    assert seen == ["status", "list", "spawn", "nodes", "locate", "describe", "stop", "locate", "forget"]


def test_the_commands_of_the_readme_print_a_line_of_each_file_at_once(
    recipe: Callable[..., Project], server: Server
) -> None:
    # Given
    project = recipe(README)
    (block,) = blocks(README, "console")
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    (_, shown_status), (_, shown_table) = list(commands(README))[-2:]

    # When
    with shell("\n".join(lines[:3]), project) as output:
        # Then
        wait_until(
            lambda: (
                {"tail.web-1", "tail.web-2", "tail.web-3"}
                == set(re.findall(r"INFO/daemon (\S+)\] hello \(token \d+\)", output.read_text()))
            ),
            within=RUNS_WITHIN,
            because="each file has a daemon, which prints its line",
        )
        status, locate = (project.celery(*shlex.split(line)[3:]).stdout.splitlines() for line in lines[3:])
        assert [line.split()[0] for line in status] == [line.split()[0] for line in shown_status]
        assert status[0] == shown_status[0]
        assert shape(locate[0]) == shape(shown_table[0])


def ticked(line: str) -> bool:
    """Return whether a line of ``describe`` is an event of the daemon."""
    return bool(re.match(r"\s+\d{4}-", line))


def test_the_tutorial_spawns_from_python(recipe: Callable[..., Project], server: Server, new_worker: NewWorker) -> None:
    project = recipe(TUTORIAL)
    worker = new_worker(project)
    (code,) = (block for block in blocks(TUTORIAL, "python") if not FILE.match(block))

    node, _, token = project.python(code).split()

    (address,) = wait_running(server, "ticker.mine")
    assert node == worker.node
    assert int(token) == address.token


def test_the_recipe_for_flask_runs(recipe: Callable[..., Project], server: Server, new_worker: NewWorker) -> None:
    """Attacks: Flask's own recipe gives a context to tasks only, so daemons and scanners would have none."""
    # Given
    project = recipe(DOCS / "how-to" / "flask.md")
    worker = new_worker(project)

    # When
    wait_running(server, "feed.amsterdam", "feed.lisbon", "ticker")
    project.python("import proj\nproj.count_feeds.delay()")
    answer = project.python(
        "from proj import flask_app\n"
        "client = flask_app.test_client()\n"
        "print(client.get('/feeds/lisbon').json['node'], client.get('/feeds/oslo').json['node'])"
    )

    # Then
    assert answer.split() == [worker.node, "None"]
    for line in ("feed of amsterdam starts", "] 2 feeds", "the task counts 2 feeds"):
        wait_until(lambda line=line: line in worker.output, within=RUNS_WITHIN, because="it has a context")  # type: ignore[misc]
    assert "Working outside of application context" not in worker.output


def test_the_recipe_for_fastapi_runs(recipe: Callable[..., Project], server: Server, new_worker: NewWorker) -> None:
    # Given
    project = recipe(DOCS / "how-to" / "fastapi.md")
    worker = new_worker(project)

    # When
    answers = project.python(
        "import time\n"
        "from fastapi.testclient import TestClient\n"
        "from proj import web\n"
        "with TestClient(web) as client:\n"
        "    print(client.put('/rooms/lobby', params={'topic': 'tea'}).status_code)\n"
        f"    deadline = time.monotonic() + {RUNS_WITHIN}\n"
        "    while (found := client.get('/rooms/lobby')).status_code == 404 and time.monotonic() < deadline:\n"
        "        time.sleep(0.05)\n"
        "    print(found.json().get('node'), client.get('/rooms/nowhere').status_code)\n"
        "    print(client.delete('/rooms/lobby').json()['closed'])\n",
        within=2 * RUNS_WITHIN,
    )

    # Then
    assert answers.split() == ["200", worker.node, "404", "lobby"]


DJANGO_FILES = {
    "mysite/settings.py": (
        "from pathlib import Path\n"
        "SECRET_KEY = 'x'\n"
        "INSTALLED_APPS = ['celery_daemons.contrib.django', 'shop']\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3',\n"
        "             'NAME': Path(__file__).parent.parent / 'shop.sqlite3', 'OPTIONS': {'timeout': 30}}}\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
    ),
    "shop/__init__.py": "",
    "shop/models.py": (
        "from django.db import models\n\n\n"
        "class Shop(models.Model):\n"
        "    polls = models.IntegerField(default=0)\n"
        "    every = models.FloatField(default=0.2)\n"
    ),
}

DJANGO_SETUP = (
    "import os\n"
    "os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\n"
    "import django\n"
    "django.setup()\n"
    "from django.core.management import call_command\n"
    "from shop.models import Shop\n"
)


def test_the_recipe_for_django_runs(recipe: Callable[..., Project], server: Server, new_worker: NewWorker) -> None:
    # Given
    project = recipe(DOCS / "how-to" / "django.md", module="mysite", more=DJANGO_FILES)
    project.python(DJANGO_SETUP + "call_command('migrate', run_syncdb=True)\nShop().save(); Shop().save()")

    # When
    worker = new_worker(project)
    wait_running(server, "shop.1", "shop.2", app="mysite")

    # Then
    def polled() -> Any:
        return project.python(DJANGO_SETUP + "print(all(shop.polls > 2 for shop in Shop.objects.all()))") == "True\n"

    wait_until(polled, within=RUNS_WITHIN, because="each shop has a daemon that polls it")
    shown = project.python(
        DJANGO_SETUP + "from shop.views import open_shop\nopen_shop(7)\ncall_command('daemons', 'locate', 'shop.1')"
    )
    assert worker.node in shown
    (address,) = wait_running(server, "shop.7", app="mysite")
    assert address.node == worker.node


def test_the_tests_that_the_how_to_page_shows_pass(tmp_path: Path) -> None:
    write(tmp_path, {**files(DOCS / "how-to" / "test-your-daemons.md"), **files(TUTORIAL)})

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reference" / "api.html").exists()
