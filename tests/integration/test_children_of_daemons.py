"""Processes that daemons start: they are ordinary processes, and they end with the process that has started them."""

import multiprocessing
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
import concurrent.futures, multiprocessing, subprocess, sys
import billiard
from celery_daemons import Launcher

loaded = []

def square(number):
    return number * number

def sleep(seconds):
    time.sleep(seconds)

def start_child(way):
    if way == "subprocess":
        return subprocess.Popen(["sleep", "1000"])
    contexts = {"fork": multiprocessing.get_context("fork"), "spawn": multiprocessing.get_context("spawn")}
    process = contexts.get(way, billiard).Process(target=sleep, args=(1000,))
    process.start()
    return process

def end_child(ctx, way):
    '''Terminate a child of this process and return how it ended.'''
    if way == "os.fork":
        pid = os.fork()
        if pid == 0:
            time.sleep(1000)
            os._exit(0)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    child = start_child(way)
    child.terminate()
    if way == "subprocess":
        return child.wait(20)
    child.join(20)
    return child.exitcode

def compute(way):
    if way == "pool":
        with multiprocessing.Pool(2) as pool:
            return pool.map(square, range(4))
    method = None if way == "futures" else multiprocessing.get_context(way)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=method) as pool:
        return list(pool.map(square, range(4)))

def terminates(ctx, way):
    code = end_child(ctx, way)
    note(ctx.name, "ended", code=code, stopping=ctx.stopping.is_set())

def computes(ctx, way):
    note(ctx.name, "computed", result=compute(way), method=multiprocessing.get_start_method())

def threadless(function):
    def run(ctx, way):
        function(ctx, way)
        ctx.stopping.wait()
    return run

def coroutine(function):
    async def run(ctx, way):
        function(ctx, way)
        await ctx.stopping.wait()
    return run

for function in (terminates, computes):
    name = function.__name__
    daemons.register_launcher(name + "-process", Launcher(threadless(function)))
    daemons.register_launcher(name + "-thread", Launcher(threadless(function), isolation="thread"))
    daemons.register_launcher(name + "-coroutine", Launcher(coroutine(function), isolation="process"))
    daemons.register_launcher(name + "-shared", Launcher(coroutine(function)))

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

@daemons.launcher
async def ticks(ctx):
    while True:
        note(ctx.name, "ticks")
        await ctx.sleep(0.02)

async def forgets(ctx):
    note(ctx.name, "runs")
    pid = os.fork()
    if pid == 0:
        return
    note(ctx.name, "reaped", status=os.waitpid(pid, 0)[1])
    await ctx.stopping.wait()

def forgets_process(ctx):
    note(ctx.name, "runs")
    pid = os.fork()
    if pid == 0:
        raise RuntimeError("in the fork")
    note(ctx.name, "reaped", status=os.waitpid(pid, 0)[1])
    ctx.stopping.wait()

daemons.register_launcher("forgets-shared", Launcher(forgets))
daemons.register_launcher("forgets-coroutine", Launcher(forgets, isolation="process"))
daemons.register_launcher("forgets-process", Launcher(forgets_process))
daemons.register_launcher("forgets-thread", Launcher(forgets_process, isolation="thread"))
"""
)

shared_cluster = module_cluster(SOURCE)

PLACES = ["process", "thread", "coroutine", "shared"]


def gone(pid: int) -> bool:
    """Return whether a process is dead; one that nobody has reaped yet is."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["subprocess", "fork", "spawn", "billiard", "os.fork"])
def test_a_child_of_a_daemon_ends_by_sigterm_and_the_daemon_is_not_asked_to_stop(
    cluster: IntegrationCluster, place: str, way: str
) -> None:
    # When
    name = f"terminates-{way}-{place}"
    cluster.daemons.spawn(name, f"terminates-{place}", args=[way])

    # Then
    ended = cluster.wait_event(name, "ended")
    assert (ended["code"], ended["stopping"]) == (-signal.SIGTERM, False)
    cluster.wait_status(name, "running")
    assert len(cluster.events(name)) == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["futures", "pool", "fork", "spawn", "forkserver"])
def test_a_process_pool_in_a_daemon_runs_functions_of_the_app(
    cluster: IntegrationCluster, place: str, way: str
) -> None:
    # When
    name = f"computes-{way}-{place}"
    cluster.daemons.spawn(name, f"computes-{place}", args=[way])

    # Then children can import what the daemon can, and the start method is the platform's
    computed = cluster.wait_event(name, "computed")
    assert computed["result"] == [0, 1, 4, 9]
    assert computed["method"] == platform_start_method()
    cluster.wait_status(name, "running")


def platform_start_method() -> str:
    """Return the start method of multiprocessing in a plain script."""
    return multiprocessing.get_context().get_start_method()


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
    wait_until(lambda: cluster.record("parent-of-dead").token > before.token, within=SOON, because="it starts again")


@pytest.mark.parametrize(("place", "status"), [("shared", 0), ("coroutine", 0), ("process", 256), ("thread", 256)])
def test_a_fork_that_leaves_the_code_of_its_daemon_ends_and_runs_no_daemon(
    cluster: IntegrationCluster, place: str, status: int
) -> None:
    """Attacks invariant 1: a fork of a host holds every daemon of that host, and could go on with them."""
    # Given a neighbour in the same host
    cluster.spawn("neighbour", "ticks")

    # When
    name = f"forgets-{place}"
    cluster.daemons.spawn(name, f"forgets-{place}")

    # Then the fork ends as a script does, and its end is not the daemon's
    assert cluster.wait_event(name, "reaped")["status"] == status
    cluster.wait_status(name, "running")
    assert len(cluster.events(name, "runs")) == 1
    assert {tick["pid"] for tick in cluster.events("neighbour")} == {cluster.record("neighbour").pid}


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


def test_programs_that_a_daemon_starts_have_the_python_path_of_the_worker(cluster: IntegrationCluster) -> None:
    """A program of another Python must not import the packages of this one."""
    # When
    cluster.spawn("environment", "parent", "stay")

    # Then
    program = psutil.Process(cluster.wait_event("environment", "has")["children"][0])
    assert program.environ().get("PYTHONPATH") == cluster.project.environment()["PYTHONPATH"]
