"""The end of a host ends what its daemons have started, whatever the end, and is reported with its cause."""

import os
import signal

import psutil
import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
import ctypes, multiprocessing, subprocess, sys

def start_child(way):
    if way == "subprocess":
        return subprocess.Popen(["sleep", "1000"])
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    process.start()
    return process

@daemons.launcher(backoff=0.1, backoff_max=0.1, max_restarts=1000, stop_grace=20)
def parent(ctx, how):
    children = [start_child("subprocess"), start_child("fork")]
    shell = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    grandchild = int(shell.stdout.readline())
    note(ctx.name, "has", children=[child.pid for child in children] + [shell.pid, grandchild])
    first = not os.path.exists(f"{FOLDER}/again-{ctx.name}")
    open(f"{FOLDER}/again-{ctx.name}", "w").close()
    if first and how == "raise":
        raise RuntimeError("on purpose")
    if first and how == "exit":
        sys.exit(3)
    if first and how == "os-exit":
        os._exit(3)
    if first and how == "return":
        return
    if first and how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    ctx.stopping.wait()

@daemons.launcher(isolation="process", restart="temporary")
async def cancels(ctx):
    raise asyncio.CancelledError

@daemons.launcher
def seizes(ctx):
    child = start_child("subprocess")
    note(ctx.name, "has", children=[child.pid, os.getpid()])
    if not os.path.exists(f"{FOLDER}/seized"):
        open(f"{FOLDER}/seized", "w").close()
        ctypes.PyDLL(None).sleep(100)
    ctx.stopping.wait()
"""
)

shared_cluster = module_cluster(SOURCE)


def gone(pid: int) -> bool:
    """Return whether a process is dead; one that nobody has reaped yet is."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["stop", "kill", "raise", "exit", "os-exit", "return", "segfault"])
def test_children_and_grandchildren_of_an_isolated_daemon_end_with_its_process(
    cluster: IntegrationCluster, how: str
) -> None:
    """Attacks invariant 6: a program of an older run could work beside the programs of the newer one."""
    # Given
    name = f"parent-{how}"
    cluster.daemons.spawn(name, "parent", args=[how])
    children = cluster.wait_event(name, "has")["children"]

    # When the run ends, by itself or by
    if how == "stop":
        cluster.daemons.stop(name, wait=SOON)
    elif how == "kill":
        os.kill(cluster.wait_status(name, "running").pid, signal.SIGKILL)

    # Then
    wait_until(lambda: all(map(gone, children)), within=SOON, because="they are killed with their process group")
    if how != "stop":
        cluster.wait_event(name, "has", times=2)
        cluster.wait_status(name, "running")


def test_the_end_of_a_worker_ends_what_its_daemons_have_started(cluster: IntegrationCluster) -> None:
    # Given daemons on both of two nodes
    second = cluster.worker("w2")
    names = [f"parent-of-{number}" for number in range(6)]
    for name in names:
        cluster.daemons.spawn(name, "parent", args=["stay"])
    for name in names:
        cluster.wait_event(name, "has")
        cluster.wait_status(name, "running")
    here = [name for name in names if cluster.record(name).node == second.node]
    children = [pid for name in here for pid in cluster.events(name, "has")[-1]["children"]]
    assert children

    # When
    second.stop()

    # Then
    assert [pid for pid in children if not gone(pid)] == []


def test_the_death_of_an_agent_ends_what_its_daemons_have_started(cluster: IntegrationCluster) -> None:
    # Given
    worker = cluster.worker()
    cluster.daemons.spawn("parent-of-dead", "parent", args=["stay"])
    children = cluster.wait_event("parent-of-dead", "has")["children"]
    before = cluster.wait_status("parent-of-dead", "running")

    # When
    cluster.agent(worker).kill()

    # Then
    wait_until(lambda: all(map(gone, children)), within=SOON, because="nobody is left that could stop them")
    wait_until(
        lambda: (cluster.record("parent-of-dead").token or 0) > (before.token or 0),
        within=SOON,
        because="it starts again",
    )


def test_the_death_of_an_agent_ends_a_host_that_holds_the_gil_and_its_programs(cluster: IntegrationCluster) -> None:
    """Attacks invariant 1: such a host cannot read that its agent is dead, and its programs outlive its lease timer."""
    # Given
    cluster.daemons.spawn("seizes", "seizes")
    processes = cluster.wait_event("seizes", "has")["children"]

    # When
    cluster.agent(cluster.worker()).kill()

    # Then the worker kills the session of the agent
    wait_until(lambda: all(map(gone, processes)), within=SOON, because="the worker sees the death of the agent")
    cluster.wait_event("seizes", "has", times=2)


@pytest.mark.parametrize(
    ("how", "text"),
    [("os-exit", "exited with status 3"), ("kill", "was killed by SIGKILL"), ("segfault", "was killed by SIGSEGV")],
)
def test_the_death_of_a_host_is_reported_with_its_exit_status_or_signal(
    cluster: IntegrationCluster, how: str, text: str
) -> None:
    # Given
    name = f"dies-{how}"
    cluster.daemons.spawn(name, "parent", args=[how])
    cluster.wait_event(name, "has")

    # When
    if how == "kill":
        os.kill(cluster.wait_status(name, "running").pid, signal.SIGKILL)

    # Then
    wait_until(lambda: text in (cluster.record(name).error or ""), within=SOON, because="the kernel knows the cause")


def test_a_coroutine_in_a_process_of_its_own_that_cancels_itself_counts_as_failed(cluster: IntegrationCluster) -> None:
    cluster.daemons.spawn("cancels", "cancels")

    cluster.wait_status("cancels", "stopped")
    assert cluster.record("cancels").error == "CancelledError: the daemon cancelled itself"
