"""``logs`` and ``stack`` show what a daemon has logged and where its code is, in every state of the daemon."""

import json
import subprocess
import sys

import pytest

from celery_daemons.client.node_questions import NodeQuestions
from celery_daemons.errors import DaemonsError
from celery_daemons.wire.log_ring import LogLine
from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
import logging, sys
library = logging.getLogger("somelib.inner")

def helper_that_sleeps(seconds):
    end = time.monotonic() + seconds
    while not os.path.exists(FOLDER + "/free") and time.monotonic() < end:
        time.sleep(0.05)

@daemons.launcher
async def talker(ctx, blocks=0):
    ctx.log.info("speaks", extra={"token": "mine"})
    library.warning("library of %s", ctx.name)
    await asyncio.to_thread(library.warning, "from a thread")
    print("printed")
    note(ctx.name, "spoke")
    if blocks:
        helper_that_sleeps(blocks)
    await inner_wait(ctx)

async def inner_wait(ctx):
    await asyncio.sleep(1000)

@daemons.launcher
def alone(ctx):
    ctx.log.info("speaks")
    library.warning("library of %s", ctx.name)
    thread = threading.Thread(target=library.warning, args=("from a thread",))
    thread.start()
    thread.join()
    print("printed")
    print("to stderr", file=sys.stderr)
    note(ctx.name, "spoke")
    ctx.stopping.wait()

@daemons.launcher(isolation="thread")
def threaded(ctx):
    ctx.log.info("speaks")
    note(ctx.name, "spoke")
    ctx.stopping.wait()

@daemons.launcher(backoff=0.1)
def killed(ctx):
    ctx.log.info("run %d", ctx.token)
    note(ctx.name, "spoke")
    if not os.path.exists(FOLDER + "/killed"):
        open(FOLDER + "/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    ctx.stopping.wait()

@daemons.launcher(isolation="auto")
async def repeater(ctx):
    note(ctx.name, "runs")
    while True:
        await asyncio.sleep(0.2)
        time.sleep(0.15)

@daemons.launcher
async def ticker(ctx):
    count = 0
    while True:
        count += 1
        ctx.log.info("tick %d at %f", count, time.time())
        await asyncio.sleep(0.1)
"""
)

shared_cluster = module_cluster(SOURCE)


def questions(cluster: IntegrationCluster) -> NodeQuestions:
    """Return what asks the nodes of a cluster."""
    return NodeQuestions(cluster.daemons.cluster.store, cluster.daemons.lookups)


def logged(cluster: IntegrationCluster, name: str) -> list[LogLine]:
    """Return the lines of a daemon."""
    return list(questions(cluster).logs(name, lines=100).lines)


@pytest.mark.parametrize("launcher", ["talker", "alone", "threaded"])
def test_logs_show_what_a_daemon_and_its_libraries_log_and_print(cluster: IntegrationCluster, launcher: str) -> None:
    # Given
    address = cluster.spawn(f"logs.{launcher}", launcher)
    cluster.wait_event(f"logs.{launcher}", "spoke")

    # When
    lines = logged(cluster, f"logs.{launcher}")

    # Then
    expected = ["speaks"]
    if launcher != "threaded":
        expected += [f"library of logs.{launcher}", "from a thread", "printed"]
    assert [line.message for line in lines if line.message in expected] == expected
    assert {line.token for line in lines} == {address.token}
    assert lines[0].logger == f"daemons.{launcher}"


def test_logs_of_a_run_that_was_killed_are_shown_after_the_restart(cluster: IntegrationCluster) -> None:
    # Given
    cluster.daemons.spawn("logs.killed", "killed")
    second = cluster.wait_event("logs.killed", "spoke", times=2)

    # When
    runs = [line for line in logged(cluster, "logs.killed") if line.message.startswith("run ")]

    # Then
    assert len(runs) == 2
    assert [f"run {line.token}" for line in runs] == [line.message for line in runs]
    assert runs[0].token < runs[1].token
    assert second["pid"] > 0


@pytest.mark.heavy
def test_a_blocked_daemon_is_named_with_its_stack_and_its_neighbours_start_elsewhere(
    cluster: IntegrationCluster,
) -> None:
    # Given
    address = cluster.spawn("logs.blocker", "talker", 100)
    cluster.wait_event("logs.blocker", "spoke")
    wait_until(
        lambda: cluster.record("logs.blocker").blocked is not None, within=SOON, because="the blocked loop is shown"
    )

    # When
    lines = logged(cluster, "logs.blocker")
    stack = cluster.project.celery_json("daemons", "stack", "logs.blocker")
    neighbour = cluster.spawn("logs.neighbour", "talker")
    status = cluster.project.celery_json("daemons", "status")
    table = cluster.project.celery("daemons", "list").stdout

    # Then
    blocked = cluster.record("logs.blocker").blocked
    (cluster.project.folder / "free").touch()
    assert blocked is not None
    assert (blocked.pid, blocked.by) == (address.pid, "logs.blocker")
    warnings = [line.message for line in lines if "blocks the event loop" in line.message]
    assert "helper_that_sleeps" in warnings[0]
    assert stack["holds_loop_for"] > 0
    assert [frame["function"] for frame in stack["stacks"][0]["frames"]] == ["talker", "helper_that_sleeps"]
    assert neighbour.pid != address.pid
    assert [loop["by"] for loops in status["blocked"].values() for loop in loops] == ["logs.blocker"]
    assert "blocked for" in table
    assert "by daemon logs.blocker" in table


def test_a_daemon_that_blocks_repeatedly_is_moved_to_a_separate_process(cluster: IntegrationCluster) -> None:
    # Given
    before = cluster.spawn("logs.repeater", "repeater")
    neighbour = cluster.spawn("logs.beside", "talker")

    # When
    after = cluster.wait_restarted(before)

    # Then
    assert after.pid != before.pid
    assert cluster.running("logs.beside")["logs.beside"] == neighbour
    (warning,) = [line.message for line in logged(cluster, "logs.repeater") if "blocked the event" in line.message]
    assert "daemon logs.repeater: blocked the event loop" in warning


@pytest.mark.parametrize(
    ("launcher", "function"), [("talker", "inner_wait"), ("alone", "alone"), ("threaded", "threaded")]
)
def test_a_stack_shows_where_the_code_of_a_daemon_waits(
    cluster: IntegrationCluster, launcher: str, function: str
) -> None:
    # Given
    address = cluster.spawn(f"stack.{launcher}", launcher)
    cluster.wait_event(f"stack.{launcher}", "spoke")

    # When
    node, stack = questions(cluster).stack(f"stack.{launcher}")

    # Then
    assert (node, stack.pid, stack.token) == (address.node, address.pid, address.token)
    assert function in [frame.function for frame in stack.stacks[0].frames]


def test_following_a_daemon_shows_its_lines_at_once_and_after_a_restart(cluster: IntegrationCluster) -> None:
    # Given
    before = cluster.spawn("logs.ticker", "ticker")
    command = [sys.executable, "-m", "celery", "-A", "proj", "daemons", "logs", "logs.ticker", "-f", "--lines", "0"]
    with subprocess.Popen(
        [*command, "--json"],
        cwd=cluster.project.folder,
        env=cluster.project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())

        # When
        cluster.daemons.restart("logs.ticker")
        after = cluster.wait_restarted(before)
        lines = [first]
        while lines[-1]["token"] != after.token:
            lines.append(json.loads(follower.stdout.readline()))
        follower.send_signal(2)
        exit_status = follower.wait(SOON)

    # Then each line came once and in order
    keys = [(line["token"], int(line["message"].split()[1])) for line in lines if line["message"].startswith("tick")]
    assert keys == sorted(set(keys))
    assert exit_status == 0


def test_the_error_says_why_nothing_can_be_shown(cluster: IntegrationCluster) -> None:
    with pytest.raises(DaemonsError, match=r"no daemon no\.such is known"):
        logged(cluster, "no.such")
    with pytest.raises(DaemonsError, match=r"daemon no\.such has no stack"):
        questions(cluster).stack("no.such")


@pytest.mark.heavy
def test_the_commands_print_lines_and_stacks_for_people(cluster: IntegrationCluster) -> None:
    # Given
    cluster.spawn("shown", "talker")
    cluster.wait_event("shown", "spoke")

    # When
    logs = cluster.project.celery("daemons", "logs", "shown")
    stack = cluster.project.celery("daemons", "stack", "shown")
    unknown = cluster.project.celery("daemons", "logs", "no.such")

    # Then
    assert "WARNING library of shown" in logs.stdout
    assert "daemon shown on node w1@test" in logs.stderr
    assert "in inner_wait" in stack.stdout
    assert unknown.returncode == 1
    assert "no daemon no.such is known" in unknown.stderr


@pytest.mark.heavy
def test_following_a_daemon_continues_on_the_node_to_which_it_moves(cluster: IntegrationCluster) -> None:
    # Given
    cluster.worker("w2")
    before = cluster.spawn("logs.mover", "ticker")
    target = "w2@test" if before.node == "w1@test" else "w1@test"
    asked = questions(cluster)
    first = asked.logs("logs.mover", lines=1)

    # When
    cluster.daemons.move("logs.mover", to=target)
    seen: list[tuple[str, int, int]] = []
    for source in asked.follow("logs.mover", first):
        seen += [(source.node, line.token, line.number) for line in source.lines]
        if seen and seen[-1][0] == target:
            break

    # Then
    assert [node for node, _, _ in seen] == sorted((node for node, _, _ in seen), key=lambda node: node == target)
    assert [place for _, *place in seen] == sorted(place for _, *place in seen)
    assert len(set(seen)) == len(seen)
