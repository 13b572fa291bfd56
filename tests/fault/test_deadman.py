"""A host that cannot prove its lease is dead before its node can be swept, whatever its daemons do."""

from pathlib import Path

import psutil

from tests.fault.cast import SOURCE, names_for
from tests.fault.conftest import OnStage
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.fault.stage import Stage
from tests.support.processes import alive
from tests.support.waiting import wait_until
from tests.support.witness import LifeSeen

#: The bit of SIGALRM among pending signals.
ALARM = 1 << 13

#: Daemons that hold on to their process in every way there is while a flag is up on their node, and testify after it.
UNRULY = (
    SOURCE
    + """
import ctypes
from celery_daemons import Launcher

libc = ctypes.PyDLL(None)


def flagged(ctx):
    return (Path(FOLDER) / f"unruly-{ctx.node}").exists()


def spin(ctx):
    while flagged(ctx):
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        testify("lives", ctx)


def sleep_in_c(ctx):
    libc.sleep(8)


def loop_in_c(ctx):
    sum(range(10**9))


def obeying(misbehave):
    def run(ctx):
        testify("begins", ctx)
        while not ctx.stopping.is_set():
            testify("lives", ctx)
            ctx.sleep(0.02)
            if flagged(ctx):
                testify("seizes", ctx)
                misbehave(ctx)
                testify("lives", ctx)

    return run


@daemons.launcher("spinning-watch")
async def spinning_watch(ctx):
    testify("begins", ctx)
    while True:
        testify("lives", ctx)
        await asyncio.sleep(0.02)
        if flagged(ctx):
            testify("seizes", ctx)
            spin(ctx)


daemons.register_launcher("spinner", Launcher(obeying(spin)))
daemons.register_launcher("sleeper", Launcher(obeying(sleep_in_c)))
daemons.register_launcher("looper", Launcher(obeying(loop_in_c)))
daemons.register_launcher("spinning-strand", Launcher(obeying(spin), isolation="thread"))
for launcher in ("spinner", "sleeper", "looper", "spinning-strand", "spinning-watch"):
    daemons.launchers[launcher].recovery_scanner(lambda it=daemons.launchers[launcher]: listed(it))
"""
)
#: Daemons that only the node with a label may run.
PICKY = (
    SOURCE
    + """

@daemons.launcher("picky", labels=["own"])
async def picky(ctx):
    await watch.factory(ctx)


picky.recovery_scanner(lambda: listed(picky))
"""
)
SPINNING = ("spinner", "spinning-watch", "spinning-strand")
#: They keep the GIL: no thread of their process runs before they let go.
SEIZING = ("sleeper", "looper")
A, B = NODES = ("w1@test", "w2@test")


#: All of them on one node, and as many on the other that behave.
CAST = names_for(NODES, dict.fromkeys((*SPINNING, *SEIZING), 1), on=A) + names_for(NODES, {"watch": 5}, on=B)


def alarm_pending(process: psutil.Process) -> bool:
    """Whether the kernel has sent SIGALRM to a process that cannot take it yet."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) & ALARM for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def seized(stage: Stage, names: list[str]) -> bool:
    """Whether these daemons have got hold of their process."""
    lines = (stage.project.folder / "witness").read_text().splitlines()
    return set(names) <= {line.split()[1] for line in lines if line.startswith("seizes")}


def last_signs(stage: Stage, names: list[str]) -> dict[str, LifeSeen]:
    """The last life of each daemon so far."""
    lives = stage.witness.lives()
    return {name: lives[name][-1] for name in names}


def all_anew(stage: Stage, before: dict[str, list[LifeSeen]]) -> bool:
    """Whether every daemon has begun another life."""
    now = stage.witness.lives()
    return all(len(now[name]) > len(before[name]) for name in before)


def no_sign_since(stage: Stage, seen: dict[str, LifeSeen]) -> None:
    """Assert that the lives seen then have not gone on."""
    now = stage.witness.lives()
    for name, life in seen.items():
        assert life in now[name], f"{name} went on: it was {life}, and there are {now[name]}"


def test_hosts_of_a_frozen_agent_are_killed_by_the_kernel_before_their_node_is_swept(on_stage: OnStage) -> None:
    """Attacks: a host outlives the lease that nobody renews for it (at no instant do two processes run a daemon)."""
    # Given
    stage = on_stage()
    node, _ = stage.leading()
    agent, hosts = stage.agent(node), stage.hosts(node)
    assert len(hosts) == 2, "one for coroutines and threads, one for the process"

    # When
    start = stage.journal_end()
    freeze(agent)

    # Then
    stage.wait_event("lost", since=start)
    assert not any(alive(host) for host in hosts)
    stage.wait_moved(node)
    stage.untouched(stage.off(node))
    thaw(agent)
    stage.final_check()


def test_frozen_hosts_run_no_further_instruction_when_they_thaw_past_their_lease(on_stage: OnStage) -> None:
    """Attacks: the agent renews for hosts that do not hear it; whatever they missed, the kernel has the last word."""
    # Given
    stage = on_stage()
    hosts = stage.hosts(A)

    # When
    freeze(*hosts)
    seen = last_signs(stage, stage.on(A))
    wait_until(lambda: all(alarm_pending(host) for host in hosts), within=SOON, because="their lease ends")
    thaw(*hosts)

    # Then
    wait_dead(hosts, because="the alarm comes before anything else")
    theirs = {name: stage.before[name] for name in stage.on(A)}
    wait_until(lambda: stage.client.restarted(theirs), within=SOON, because="the agent starts other hosts")
    no_sign_since(stage, seen)
    stage.untouched(stage.off(A))
    stage.final_check()


def test_a_frozen_machine_runs_no_further_instruction_of_its_daemons_when_it_thaws(on_stage: OnStage) -> None:
    """Attacks: old copies, of every kind, beside those that took their place meanwhile."""
    # Given
    stage = on_stage()
    node = stage.other(stage.leading()[0])
    worker, hosts = stage.workers[node], stage.hosts(node)

    # When
    worker.pause_tree()
    seen = last_signs(stage, stage.on(node))
    stage.wait_moved(node)
    worker.resume_tree()

    # Then
    wait_dead(hosts, because="their alarm is pending")
    no_sign_since(stage, seen)
    stage.untouched(stage.off(node))
    stage.final_check()


def test_daemons_that_never_let_go_die_with_the_lease_of_a_frozen_agent(on_stage: OnStage) -> None:
    """Attacks: code that spins, or keeps the GIL in C, cannot be told to stop; it ends before its successor begins."""
    # Given
    stage = on_stage(source=UNRULY, wanted=CAST, settings={"lease_ttl": 2.0, "heartbeat_interval": 0.4})
    agent, hosts = stage.agent(A), stage.hosts(A)
    stage.flag(f"unruly-{A}")
    wait_until(lambda: seized(stage, stage.on(A)), within=SOON, because="the flag is up")

    # When
    start = stage.journal_end()
    freeze(agent)

    # Then
    stage.wait_event("lost", since=start)
    assert not any(alive(host) for host in hosts)
    stage.wait_moved(A)
    stage.untouched(stage.off(A))
    stage.flag(f"unruly-{A}", up=False)
    thaw(agent)
    stage.final_check()


def test_a_daemon_that_keeps_the_gil_past_its_lease_costs_its_own_host_and_no_other(on_stage: OnStage) -> None:
    """Attacks: a host that cannot hear of a renewal dies although its node is well; one that spins hears of it."""
    # Given
    stage = on_stage(source=UNRULY, wanted=CAST, settings={"lease_ttl": 2.0, "heartbeat_interval": 0.4})
    seizing = [name for name in stage.on(A) if name.startswith(SEIZING)]
    spinning = [name for name in stage.on(A) if name.startswith(SPINNING)]

    # When
    stage.flag(f"unruly-{A}")
    wait_dead(
        [psutil.Process(stage.before[name].pid) for name in seizing],
        because="they keep the thread that listens from running",
    )
    stage.flag(f"unruly-{A}", up=False)

    # Then
    theirs = {name: stage.before[name] for name in seizing}
    wait_until(lambda: stage.client.restarted(theirs), within=SOON, because="the agent starts them again")
    stage.untouched([*spinning, *stage.off(A)])
    assert {stage.client.locate_many(seizing)[name].node for name in seizing} == {A}
    stage.final_check()


def test_a_host_born_while_its_node_joins_is_bound_by_the_lease_as_any_other(on_stage: OnStage) -> None:
    """Attacks: a process forked before its node had a lease lives by an allowance that no sweep waits for."""
    # Given daemons that only one node may run, which is down; it joins when the first of its many hosts is ready
    stage = on_stage(
        source=PICKY,
        wanted=[f"picky.{number}" for number in range(8)],
        settings={"hosts": 8, "lease_ttl": 1.8, "heartbeat_interval": 0.6},
        options={"w2": ["--daemon-labels", "own"]},
    )
    worker = stage.workers[B]
    worker.stop()
    before = stage.witness.lives()

    # When its agent is frozen before the first heartbeat
    worker.start()
    agent = wait_until(lambda: stage.agents(B), within=SOON, because="a worker starts its agent")[0]
    wait_until(lambda: all_anew(stage, before), within=SOON, because="the node may run them", interval=0.002)
    agent.suspend()

    # Then
    stage.wait_event("lost")
    alive_still = {host.pid for host in stage.hosts(B)}
    thaw(agent)
    # One that was forked but never heard of lives by its allowance, and runs nothing.
    assert not alive_still & {lives[-1].pid for lives in stage.witness.lives().values()}
    stage.final_check()
