"""A worker of the tests' own takes tasks, dies in each way that the fault tests need, and leaves nobody behind."""

import os
import signal

import psutil
import pytest

from tests.conftest import NewProject, NewWorker
from tests.support.processes import alive, halted, wait_gone
from tests.support.projects import Project
from tests.support.waiting import wait_until
from tests.support.workers import Worker

#: A plain Celery project: its task starts a program that leaves its parent, its session and its environment's text.
SOURCE = """
import subprocess, sys
from celery import Celery

app = Celery("proj", broker=BROKER_URL)
app.conf.task_default_queue = NAMESPACE

RUNAWAY = '''
import os, time
if os.fork():
    os._exit(0)
os.setsid()
import setproctitle
setproctitle.setproctitle("runaway " + "x" * 2000)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
'''

@app.task
def elope():
    subprocess.run([sys.executable, "-c", "import sys\\n" + RUNAWAY, FOLDER + "/runaway"], check=True)
"""


@pytest.fixture
def project(new_project: NewProject) -> Project:
    return new_project(SOURCE)


def elope(project: Project) -> psutil.Process:
    """Have a worker start a process that leaves the family, and return it."""
    project.python("import proj; proj.elope.delay()")
    evidence = project.folder / "runaway"
    pid = wait_until(lambda: evidence.exists() and evidence.read_text(), within=30, because="the worker takes tasks")
    return psutil.Process(int(pid))


def test_a_worker_stops_warmly_with_status_zero(project: Project, new_worker: NewWorker) -> None:
    worker = new_worker(project)
    assert worker.node in worker.output

    assert worker.stop() == 0
    wait_gone(worker.tree())


def test_the_children_of_a_killed_worker_are_still_found(project: Project, new_worker: NewWorker) -> None:
    worker = new_worker(project, concurrency=2)
    assert len(worker.tree()) >= 3

    worker.kill()

    assert not worker.running
    assert worker.pid not in [process.pid for process in worker.tree()]


def test_a_process_that_left_its_session_is_found_paused_and_killed(project: Project, new_worker: NewWorker) -> None:
    worker = new_worker(project)
    runaway = elope(project)
    assert runaway.pid in [process.pid for process in worker.tree()]
    assert os.getsid(runaway.pid) != os.getsid(worker.pid)

    worker.pause_tree()
    assert all(halted(process) for process in [runaway, psutil.Process(worker.pid)])
    worker.resume_tree()
    wait_until(lambda: not halted(runaway), within=5, because="SIGCONT was sent")

    worker.kill_tree()
    assert not alive(runaway)
    assert worker.tree() == []


def test_the_with_block_of_a_worker_ends_all_its_processes(project: Project) -> None:
    with Worker(project) as worker:
        runaway = elope(project)
        family = worker.tree()

    assert not any(alive(process) for process in [runaway, *family])


def test_a_worker_can_be_started_again(project: Project, new_worker: NewWorker) -> None:
    worker = new_worker(project)
    first = worker.pid
    worker.kill_tree()

    worker.start()
    worker.wait_ready()

    assert worker.pid != first


@pytest.mark.parametrize(("pool", "shown"), [("solo", "solo"), ("threads", "thread"), ("gevent", "gevent")])
def test_a_worker_uses_the_requested_pool(project: Project, new_worker: NewWorker, pool: str, shown: str) -> None:
    worker = new_worker(project, pool=pool)
    assert f"({shown})" in worker.output
    assert worker.stop() == 0


def test_a_worker_that_cannot_start_shows_its_output(new_project: NewProject) -> None:
    project = new_project("raise RuntimeError('the user made a mistake')")
    with pytest.raises(AssertionError, match="the user made a mistake"), Worker(project):
        pass


def test_a_worker_that_does_not_stop_in_time_is_reported(project: Project, new_worker: NewWorker) -> None:
    worker = new_worker(project, pool="solo")
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(AssertionError, match=r"ignored SIGTERM for 0\.2 s"):
        worker.stop(timeout=0.2)


def test_commands_run_on_the_project(project: Project) -> None:
    assert project.namespace in project.celery("report").stdout
    assert project.celery("no-such-command").returncode == 2
    assert project.python("import proj; print(proj.elope.name)") == "proj.elope\n"
    with pytest.raises(AssertionError, match="exited with 3"):
        project.python("raise SystemExit(3)")
