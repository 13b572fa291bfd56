"""Processes that daemons start are ordinary processes, in every isolation and by every way to start them."""

import multiprocessing
import signal

import psutil
import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, IntegrationCluster

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

@daemons.launcher
def keeps_program(ctx):
    note(ctx.name, "has", child=start_child("subprocess").pid)
    ctx.stopping.wait()

@daemons.launcher
async def ticks(ctx):
    while True:
        note(ctx.name, "ticks", token=ctx.token)
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


@pytest.mark.parametrize(("place", "status"), [("shared", 0), ("coroutine", 0), ("process", 256), ("thread", 256)])
def test_a_fork_that_leaves_the_code_of_its_daemon_ends_and_runs_no_daemon(
    cluster: IntegrationCluster, place: str, status: int
) -> None:
    """Attacks invariant 1: a fork of a host holds every daemon of that host, and could go on with them."""
    # Given a neighbour in the same host. The tests below block that host, and the node then opens another one
    cluster.spawn("neighbour", "ticks")

    # When
    name = f"forgets-{place}"
    cluster.daemons.spawn(name, f"forgets-{place}")

    # Then the fork ends as a script does, and its end is not the daemon's
    assert cluster.wait_event(name, "reaped")["status"] == status
    cluster.wait_status(name, "running")
    assert len(cluster.events(name, "runs")) == 1
    neighbour = cluster.record("neighbour")
    ticks = [tick for tick in cluster.events("neighbour") if tick["token"] == neighbour.token]
    assert {tick["pid"] for tick in ticks} == {neighbour.pid}


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


def test_programs_that_a_daemon_starts_have_the_python_path_of_the_worker(cluster: IntegrationCluster) -> None:
    """A program of another Python must not import the packages of this one."""
    # When
    cluster.spawn("environment", "keeps_program")

    # Then
    program = psutil.Process(cluster.wait_event("environment", "has")["child"])
    assert program.environ().get("PYTHONPATH") == cluster.project.environment()["PYTHONPATH"]
