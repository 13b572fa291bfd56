"""``celery -A proj daemons monitor``: a candidate without a worker, for workers that do not run for election."""

import os
import signal
from collections.abc import Callable

from tests.conftest import NewProject, NewWorker
from tests.support.probes import Probe, probe
from tests.support.projects import PRELUDE
from tests.support.servers import free_port
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

#: The most seconds for an election or a shutdown. On a loaded build machine this takes longer than the lease.
LIMIT = 30.0
FAST = {"monitor": False, "heartbeat_interval": 0.5, "lease_ttl": 2.0}

Run = Callable[[CeleryProcess], None]


def end(process: CeleryProcess, number: signal.Signals) -> int:
    """Send a signal to the command's process only, as a service manager does, and return the exit status."""
    os.kill(process.pid, number)
    wait_until(lambda: not process.running, within=LIMIT, because=f"{number.name} was sent")
    return process.stop()


def test_a_candidate_leads_workers_that_are_no_candidates_and_resigns_on_ctrl_c(
    new_project: NewProject, new_worker: NewWorker, run_process: Run
) -> None:
    # Given
    project = new_project(SOURCE, settings=FAST)
    port = free_port()
    candidate = CeleryProcess(
        project,
        "candidate",
        ["daemons", "monitor", "-n", "boss@here"],
        ready=": elected, epoch",
        env={"CELERY_DAEMONS_HTTP": f"127.0.0.1:{port}"},
    )
    run_process(candidate)
    new_worker(project)
    candidate.wait_ready()

    # When
    address = project.celery_json("daemons", "spawn", "tick", "tick.a", "--wait", "30")
    status, nodes = project.celery_json("daemons", "status"), project.celery_json("daemons", "nodes")
    processes = candidate.tree()
    probes = [probe(port, path) for path in ("/livez", "/livez/worker", "/readyz", "/startupz")]
    page = wait_until(
        lambda: (text := probe(port, "/metrics").text) and 'status="running"} 1.0' in text and text,
        within=LIMIT,
        because="the monitor reports its numbers",
    )
    ended = end(candidate, signal.SIGINT)

    # Then
    assert address["node"] == "w1@test"
    assert (status["leader"]["node"], [node["name"] for node in nodes]) == ("boss@here", ["w1@test"])
    assert probes == [Probe(200, "ok\n")] * 4
    assert "celery_daemons_leader 1.0" in page
    assert 'celery_daemons_node_daemons{node="w1@test"} 1.0' in page
    assert len(processes) > 1
    assert ended == 0, candidate.report
    assert not candidate.tree()
    events = project.celery("daemons", "events", "--last", "1").stdout
    assert "resign        boss@here" in events
    # Running daemons keep running without a leader.
    assert project.celery("daemons", "locate", "tick.a").returncode == 0
    assert "no monitor is elected" in project.celery("daemons", "spawn", "tick", "tick.b", "--wait", "0.1").stderr


def test_a_candidate_waits_for_redis_and_exits_on_sigterm(new_project: NewProject, run_process: Run) -> None:
    # Given
    project = new_project(SOURCE, broker_url="redis://127.0.0.1:1/0", settings=FAST)
    log = project.folder / "monitor.log"
    arguments = ["daemons", "monitor", "--logfile", str(log), "--loglevel", "info"]
    candidate = CeleryProcess(project, "candidate", arguments, ready="never: the log is in a file")
    run_process(candidate)
    wait_until(
        lambda: log.exists() and log.read_text().count("does not answer") > 1,
        within=LIMIT,
        because="no server listens there, and the candidate tries again",
    )

    # When
    status = end(candidate, signal.SIGTERM)

    # Then
    assert status == 0, candidate.report
    assert candidate.output == ""
    assert not candidate.tree()
