"""``celery -A proj daemons …`` with one real worker: the output, the JSON and the exit status of every command."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.support.projects import PRELUDE, Project
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import CeleryProcess, Worker

SOURCE = (
    PRELUDE
    + """
LISTED = Path(FOLDER, "listed")

@daemons.launcher("tick")
async def tick(ctx, *args, **kwargs):
    await asyncio.Event().wait()

@daemons.launcher("crash", isolation="shared", restart="transient", backoff=30.0, backoff_max=30.0)
async def crash(ctx):
    raise ValueError("no such file\\nat all")

@daemons.launcher("gpu", labels=["gpu"])
async def gpu(ctx):
    await asyncio.Event().wait()

@tick.recovery_scanner
def ticks():
    yield [tick.spec(name) for name in (LISTED.read_text().split() if LISTED.exists() else [])]

@gpu.recovery_scanner
def gpus():
    raise RuntimeError("no database")
"""
)

ADDRESS = {"name", "launcher", "node", "incarnation", "token", "status", "queue", "host", "pid", "started_at"}
RECORD = ADDRESS | {"restarts", "error", "desired", "blocked"}
STATUS = {
    *("namespace", "leader", "nodes", "daemons", "launchers", "scanners", "rebalance_paused"),
    *("problems", "warnings", "blocked"),
}
EVENT = {"id", "at_ms", "event", "name", "node", "token", "epoch", "cause", "actor"}
NODE = {
    *("name", "incarnation", "status", "daemons", "weight", "labels", "launchers", "lease_ms"),
    *("queue", "host", "pid", "started_at", "problem", "warning", "blocked"),
}
COUNTS = {
    *("desired", "running", "pending", "assigned", "starting", "stopping"),
    *("backoff", "failed", "stopped", "unplaceable"),
}

#: The most seconds for one step of the cluster. A step takes milliseconds, on a loaded build machine longer.
LIMIT = 20.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, valkey: Server) -> Iterator[Project]:
    """A project whose only node ``w1@test`` runs ``tick.a``; each test uses its own names for other daemons."""
    folder = tmp_path_factory.mktemp("cli")
    settings = {"heartbeat_interval": 0.5, "lease_ttl": 2.0}
    project = Project(folder, SOURCE, broker_url=valkey.url, namespace=folder.name, settings=settings)
    with Worker(project):
        ran(project, "spawn", "tick", "tick.a", "--args", '["x", 1]', "--kwargs", '{"path": "y"}', "--wait", "30")
        yield project


def ran(project: Project, *arguments: str, exits: int = 0) -> CompletedProcess[str]:
    """Run a command and check the exit status, and that the command prints no traceback."""
    done = project.celery("daemons", *arguments)
    assert done.returncode == exits, f"{arguments} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def document(project: Project, *arguments: str) -> Any:
    """Run a command with ``--json`` and return its document."""
    return project.celery_json("daemons", *arguments)


def events(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """Return the events that ``events --json`` prints."""
    return [json.loads(line) for line in ran(project, "events", "--json", *arguments).stdout.splitlines()]


def test_status_shows_the_leader_the_nodes_the_daemons_and_failing_scanners(project: Project) -> None:
    shown = ran(project, "status").stdout
    status = document(project, "status")

    assert status.keys() == STATUS
    assert status["namespace"] == project.namespace
    assert status["leader"].keys() == {"node", "epoch"}
    assert (status["leader"]["node"], type(status["leader"]["epoch"])) == ("w1@test", int)
    assert status["nodes"] == {"up": 1, "draining": 0, "lost": 0}
    assert status["daemons"].keys() == COUNTS
    assert status["daemons"]["running"] >= 1
    assert status["launchers"]["tick"].keys() == COUNTS
    assert status["scanners"]["gpu"]["error"] == "RuntimeError: no database"
    assert f"w1@test (epoch {status['leader']['epoch']})" in shown
    assert re.match(r"failing  scanner of gpu, \w+ ago: RuntimeError: no database\n(.*\n)*\nnamespace  ", shown)


def test_nodes_lists_each_node_with_its_daemons(project: Project) -> None:
    shown = ran(project, "nodes").stdout.splitlines()
    (node,) = document(project, "nodes")

    assert node.keys() == NODE
    assert (node["name"], node["status"], node["launchers"]) == ("w1@test", "up", ["crash", "gpu", "tick"])
    assert 0 < node["lease_ms"] <= 2000
    assert shown[1].startswith("w1@test  up, leader")
    assert shown[-1].startswith("1 node: 1 up; ")


def test_list_shows_the_daemons_that_match(project: Project) -> None:
    shown = ran(project, "list", "--node", "w1@test").stdout
    listed = {
        record["name"]: record for record in document(project, "list", "--launcher", "tick", "--status", "running")
    }

    record = listed["tick.a"]
    assert record.keys() == RECORD
    assert (record["node"], record["desired"], record["error"]) == ("w1@test", "running", None)
    assert isinstance(record["token"], int)
    assert isinstance(record["started_at"], float)
    assert "tick.a" in shown


def test_locate_prints_the_addresses_and_fails_if_one_is_missing(project: Project) -> None:
    found = ran(project, "locate", "tick.a", "tick.nowhere", "--json", exits=1)
    shown = ran(project, "locate", "tick.a").stdout

    addresses = json.loads(found.stdout)
    assert addresses.keys() == {"tick.a", "tick.nowhere"}
    assert addresses["tick.a"].keys() == ADDRESS
    assert addresses["tick.nowhere"] is None
    assert "tick.nowhere: no address: it is not known" in found.stderr
    assert str(addresses["tick.a"]["token"]) in shown


def test_describe_shows_everything_about_one_daemon(project: Project) -> None:
    shown = ran(project, "describe", "tick.a").stdout
    described = document(project, "describe", "tick.a")
    unknown = ran(project, "describe", "tick.nowhere", exits=1)

    assert described.keys() >= RECORD | {"args", "kwargs", "why", "preferred_node", "events"}
    assert (described["args"], described["kwargs"]) == (["x", 1], {"path": "y"})
    assert (described["preferred_node"], described["why"]) == ("w1@test", None)
    assert [event["event"] for event in described["events"]] == ["want", "assign", "claim", "report"]
    assert "tick(ctx, 'x', 1, path='y')" in shown
    assert "tick.a on w1@test: running" in shown
    assert re.search(r"  want +tick.a: new \(by \S+@\S+:\d+\)", shown)
    assert [event["actor"] for event in described["events"]][1:] == ["monitor", None, None]
    assert "no daemon tick.nowhere is known" in unknown.stderr


def test_launchers_shows_the_options_and_the_nodes_of_each_launcher(project: Project) -> None:
    shown = ran(project, "launchers").stdout
    crash, gpu, tick = document(project, "launchers")

    assert (crash["name"], crash["restart"], crash["scanner"]) == ("crash", "transient", False)
    assert (gpu["name"], gpu["labels"], gpu["scanner"]) == ("gpu", ["gpu"], True)
    assert (tick["name"], tick["isolation"], tick["nodes"]) == ("tick", "shared", ["w1@test"])
    assert "w1@test" in shown


def test_a_daemon_that_crashes_is_shown_with_its_error(project: Project) -> None:
    ran(project, "spawn", "crash", "crash.a")
    wait_until(
        lambda: document(project, "list", "--status", "backoff"),
        within=LIMIT,
        because="the daemon fails as soon as it starts",
    )

    assert "ValueError: no such file\n" in ran(project, "list", "--launcher", "crash").stdout
    shown = ran(project, "describe", "crash.a").stdout
    assert "backoff: ValueError: no such file" in shown
    assert re.search(r"placement +preferred by the ring", shown)
    assert 'raise ValueError("no such file\\nat all")' in shown
    described = document(project, "describe", "crash.a")
    assert described["traceback"].startswith("Traceback (most recent call last)")
    assert described["placement"] == "preferred by the ring"


def test_spawn_prints_the_address_and_refuses_another_spec_without_replace(project: Project) -> None:
    first = document(project, "spawn", "tick", "tick.spawned", "--wait", "20")
    conflict = ran(project, "spawn", "tick", "tick.spawned", "--args", "[2]", exits=1)
    second = document(project, "spawn", "tick", "tick.spawned", "--args", "[2]", "--replace", "--wait", "20")
    unplaceable = document(project, "spawn", "gpu", "gpu.a")
    unknown = ran(project, "spawn", "nobody", "tick.other", exits=1)
    late = ran(project, "spawn", "gpu", "gpu.a", "--wait", "0.1", exits=1)

    assert first.keys() == ADDRESS
    assert (first["status"], second["status"]) == ("running", "running")
    assert second["token"] > first["token"]
    assert "the name is taken by a spec of launcher tick" in conflict.stderr
    assert unplaceable is None
    assert "registered: crash, gpu, tick" in unknown.stderr
    assert "carries the labels gpu" in late.stderr


def test_a_daemon_can_be_stopped_started_restarted_and_forgotten(project: Project) -> None:
    first = document(project, "spawn", "tick", "tick.managed", "--wait", "20")

    assert ran(project, "stop", "tick.managed", "--wait").stdout == "daemon tick.managed: stopped\n"
    assert "is stopped" in ran(project, "spawn", "tick", "tick.managed", "--wait", "20", exits=1).stderr
    assert "is stopped" in ran(project, "restart", "tick.managed", exits=1).stderr
    ran(project, "start", "tick.managed")
    second = document(project, "restart", "tick.managed", "--wait", "20")
    assert second["token"] > first["token"]
    assert document(project, "restart", "tick.managed") is None
    ran(project, "forget", "tick.managed")
    assert "no daemon tick.managed is known" in ran(project, "forget", "tick.managed", exits=1).stderr


def test_a_node_can_be_drained_and_uncordoned(project: Project) -> None:
    try:
        drained = ran(project, "drain", "w1@test", "--wait", "0.1", exits=1)
        (node,) = document(project, "nodes")
    finally:
        assert ran(project, "uncordon", "w1@test").stdout == "node w1@test: takes daemons\n"

    assert "no other node takes daemons" in drained.stderr
    assert re.search(r"no other node can take \d daemons \(crash.a, tick.a.*\); not moved", drained.stderr)
    assert node["status"] == "draining"
    assert "registered: w1@test" in ran(project, "drain", "w9@test", exits=1).stderr


def test_rescan_runs_a_scanner_at_once_and_each_listed_daemon_has_an_event(project: Project) -> None:
    Path(project.folder, "listed").write_text("tick.s1 tick.s2 tick.s3")

    ran(project, "rescan", "tick")
    wait_until(
        lambda: project.celery("daemons", "locate", "tick.s1", "tick.s2", "tick.s3").returncode == 0,
        within=LIMIT,
        because="the scanner lists the daemons",
    )

    wanted = [event for event in events(project, "--last", "500") if event["event"] == "want"]
    assert [event["name"] for event in wanted[-3:]] == ["tick.s1", "tick.s2", "tick.s3"]
    assert len({event["id"] for event in wanted[-3:]}) == 1
    assert "has no recovery scanner" in ran(project, "rescan", "crash", exits=1).stderr


def test_events_shows_what_happened_to_a_daemon_or_a_node(project: Project) -> None:
    of_daemon = events(project, "--name", "tick.a")
    of_node = events(project, "--node", "w1@test", "--last", "500")
    shown = ran(project, "events", "--name", "tick.a", "--last", "1").stdout

    assert all(event.keys() == EVENT for event in of_daemon + of_node)
    assert [event["event"] for event in of_daemon] == ["want", "assign", "claim", "report"]
    assert isinstance(of_daemon[1]["token"], int)
    assert isinstance(of_daemon[1]["epoch"], int)
    assert [event["name"] for event in of_node if event["event"] in ("join", "lead")] == [None, None]
    assert len(shown.splitlines()) == 1
    assert "tick.a on w1@test: running" in shown


def test_events_follow_prints_new_events_until_ctrl_c(project: Project) -> None:
    arguments = ["daemons", "events", "--follow", "--last", "1", "--json"]
    with CeleryProcess(project, "follower", arguments, ready=r"^\{") as follower:
        ran(project, "spawn", "tick", "tick.followed")
        wait_until(
            lambda: '"event":"report","name":"tick.followed"' in follower.output,
            within=LIMIT,
            because="the daemon was spawned",
        )
        os.kill(follower.pid, signal.SIGINT)
        wait_until(lambda: not follower.running, within=LIMIT, because="the command was interrupted")
        assert follower.stop() == 0
    assert all(json.loads(line).keys() == EVENT for line in follower.output.splitlines())


def test_names_are_complete_and_without_colours_in_a_pipe(project: Project) -> None:
    name = "tick." + "x" * 150
    ran(project, "spawn", "tick", name, "--wait", "20")

    shown = ran(project, "list").stdout

    assert any(line.startswith(f"{name}  tick  ") for line in shown.splitlines())
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].split()[1].startswith("daemon")


def test_list_fails_for_a_node_or_launcher_that_is_not_known(project: Project) -> None:
    """An empty table with exit status 0 looked like a node without daemons."""
    for option, name, known in (("--node", "w9@test", "registered: w1@test"), ("--launcher", "tock", "known: crash")):
        for more in ((), ("--json",)):
            refused = ran(project, "list", option, name, *more, exits=1)
            assert f" {name}" in refused.stderr
            assert known in refused.stderr
            assert refused.stdout == ""
