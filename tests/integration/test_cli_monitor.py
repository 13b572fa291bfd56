"""``celery -A proj daemons monitor``: a candidate without a worker, for clusters whose workers do not lead."""

import os
import signal
from collections.abc import Callable

from tests.conftest import NewProject, NewWorker
from tests.support.projects import PRELUDE
from tests.support.waiting import wait_until
from tests.support.workers import CeleryProcess

SOURCE = (
    PRELUDE
    + """
@daemons.launcher("tick")
async def tick(ctx):
    await asyncio.Event().wait()
"""
)

#: How long an election or a shutdown may take; a loaded build machine takes longer than the lease.
LIMIT = 30.0
FAST = {"monitor": False, "heartbeat_interval": 0.5, "lease_ttl": 2.0}

Run = Callable[[CeleryProcess], None]


def end(process: CeleryProcess, number: signal.Signals) -> int:
    """Send a signal to the command alone, as a service manager does, and return its exit status."""
    os.kill(process.pid, number)
    wait_until(lambda: not process.running, within=LIMIT, because=f"{number.name} was sent")
    return process.stop()


def test_a_candidate_leads_workers_that_do_not_and_resigns_when_it_is_interrupted(
    new_project: NewProject, new_worker: NewWorker, run_process: Run
) -> None:
    # Given
    project = new_project(SOURCE, settings=FAST)
    candidate = CeleryProcess(project, "candidate", ["daemons", "monitor", "-n", "boss@here"], ready=": elected, epoch")
    run_process(candidate)
    new_worker(project)
    candidate.wait_ready()

    # When
    address = project.celery_json("daemons", "spawn", "tick", "tick.a", "--wait", "30")
    status, nodes = project.celery_json("daemons", "status"), project.celery_json("daemons", "nodes")
    family = candidate.tree()
    ended = end(candidate, signal.SIGINT)

    # Then
    assert address["node"] == "w1@test"
    assert (status["leader"]["node"], [node["name"] for node in nodes]) == ("boss@here", ["w1@test"])
    assert len(family) > 1
    assert ended == 0, candidate.report
    assert not candidate.tree()
    told = project.celery("daemons", "events", "--last", "1").stdout
    assert "resign        boss@here" in told
    # Nobody leads, and yet what runs goes on.
    assert project.celery("daemons", "locate", "tick.a").returncode == 0
    assert "no monitor is elected" in project.celery("daemons", "spawn", "tick", "tick.b", "--wait", "0.1").stderr


def test_a_candidate_is_there_before_redis_and_ends_on_sigterm(new_project: NewProject, run_process: Run) -> None:
    # Given
    project = new_project(SOURCE, broker_url="redis://127.0.0.1:1/0", settings=FAST)
    log = project.folder / "monitor.log"
    arguments = ["daemons", "monitor", "--logfile", str(log), "--loglevel", "info"]
    candidate = CeleryProcess(project, "candidate", arguments, ready="never: it logs to a file")
    run_process(candidate)
    wait_until(
        lambda: log.exists() and log.read_text().count("does not answer") > 1,
        within=LIMIT,
        because="nobody listens there, and it tries again",
    )

    # When
    status = end(candidate, signal.SIGTERM)

    # Then
    assert status == 0, candidate.report
    assert candidate.output == ""
    assert not candidate.tree()
