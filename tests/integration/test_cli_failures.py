"""Errors of the command line: one line on standard error, and exit status 1."""

import pytest

from tests.conftest import NewProject
from tests.support.projects import PRELUDE

#: Port 1 of the loopback interface: no server listens there, so that a connection is refused at once.
NOWHERE = "redis://:secret@127.0.0.1:1/0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["list", "--json"],
        ["events", "--follow"],
        ["spawn", "tick", "tick.a"],
    ],
    ids=" ".join,
)
def test_a_command_without_redis_fails_with_one_line(new_project: NewProject, arguments: list[str]) -> None:
    source = PRELUDE + "@daemons.launcher('tick')\nasync def tick(ctx): ...\n"
    project = new_project(source, broker_url=NOWHERE)

    done = project.celery("daemons", *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: Redis at redis://127.0.0.1:1/0 does not answer")
    assert "daemons_redis_url" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("source", "arguments", "complaint"),
    [
        ("from celery import Celery\napp = Celery('proj')\n", ["status"], "has no Daemons: write `daemons = Daemons"),
        (PRELUDE + "app.conf.include = ['missing_module']\n", ["launchers"], "No module named 'missing_module'"),
        (PRELUDE, ["monitor", "-n", "not a name@here"], "is not a valid name"),
    ],
    ids=["no Daemons", "broken module", "bad node name"],
)
def test_a_problem_of_the_project_is_reported_in_one_line(
    new_project: NewProject, source: str, arguments: list[str], complaint: str
) -> None:
    project = new_project(source, broker_url=NOWHERE)

    done = project.celery("daemons", *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_daemons_object_in_an_included_module_is_found(new_project: NewProject) -> None:
    source = "from celery import Celery\napp = Celery('proj', broker=BROKER_URL, include=['proj_daemons'])\n"
    project = new_project(source, broker_url=NOWHERE)
    (project.folder / "proj_daemons.py").write_text(
        "from proj import app\nfrom celery_daemons import Daemons\ndaemons = Daemons(app)\n"
    )

    done = project.celery("daemons", "status")

    assert "Redis at redis://127.0.0.1:1/0 does not answer" in done.stderr


def test_a_command_without_an_app_explains_how_to_name_one(new_project: NewProject) -> None:
    project = new_project(PRELUDE, broker_url=NOWHERE)

    output = project.python(
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'celery', 'daemons', 'status'], capture_output=True, text=True)\n"
        "print(done.returncode, done.stderr)"
    )

    assert output.startswith("1 Error: no app is given")
    assert "celery -A proj daemons" in output
