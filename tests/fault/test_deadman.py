"""A host that cannot prove its lease is dead before its node can be swept, whatever its daemons do."""

from pathlib import Path

import psutil
import pytest

from tests.fault.conftest import NewFaultCluster
from tests.fault.daemon_kinds import SOURCE, names_for
from tests.fault.fault_cluster import FaultCluster
from tests.fault.signals import SOON, freeze, thaw, wait_dead
from tests.support.processes import alive
from tests.support.recorder import RecordedRun
from tests.support.waiting import wait_until

#: The bit of SIGALRM among pending signals.
ALARM = 1 << 13

#: Daemons that keep their process busy in every possible way while a flag is set on their node, and record after it.
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
        record("alive", ctx)


def sleep_in_c(ctx):
    libc.sleep(8)


def loop_in_c(ctx):
    sum(range(10**9))


def obeying(misbehave):
    def run(ctx):
        record("begins", ctx)
        while not ctx.stopping.is_set():
            record("alive", ctx)
            ctx.sleep(0.02)
            if flagged(ctx):
                record("seizes", ctx)
                misbehave(ctx)
                record("alive", ctx)

    return run


@daemons.launcher("spinning-watch")
async def spinning_watch(ctx):
    record("begins", ctx)
    while True:
        record("alive", ctx)
        await asyncio.sleep(0.02)
        if flagged(ctx):
            record("seizes", ctx)
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
#: Launchers whose daemons hold the GIL: no other thread of their process runs meanwhile.
SEIZING = ("sleeper", "looper")
A, B = NODES = ("w1@test", "w2@test")


#: All of them on one node, and as many well-behaved daemons on the other.
DAEMONS = names_for(NODES, dict.fromkeys((*SPINNING, *SEIZING), 1), on=A) + names_for(NODES, {"watch": 5}, on=B)


def alarm_pending(process: psutil.Process) -> bool:
    """Return whether SIGALRM is pending for a process that cannot receive it yet."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) & ALARM for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def seized(cluster: FaultCluster, names: list[str]) -> bool:
    """Return whether these daemons have started to misbehave."""
    lines = (cluster.project.folder / "recorder").read_text().splitlines()
    return set(names) <= {line.split()[1] for line in lines if line.startswith("seizes")}


def last_signs(cluster: FaultCluster, names: list[str]) -> dict[str, RecordedRun]:
    """Return the last run of each daemon so far."""
    runs = cluster.recorder.runs()
    return {name: runs[name][-1] for name in names}


def all_restarted(cluster: FaultCluster, before: dict[str, list[RecordedRun]]) -> bool:
    """Return whether every daemon has begun another run."""
    now = cluster.recorder.runs()
    return all(len(now[name]) > len(before[name]) for name in before)


def no_sign_since(cluster: FaultCluster, seen: dict[str, RecordedRun]) -> None:
    """Assert that these runs have not continued."""
    now = cluster.recorder.runs()
    for name, run in seen.items():
        assert run in now[name], f"{name} went on: it was {run}, and there are {now[name]}"


def test_hosts_of_a_frozen_agent_are_killed_by_the_kernel_before_their_node_is_swept(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: a host might outlive its lease while its agent cannot renew or end it."""
    # Given
    cluster = fault_cluster()
    node, _ = cluster.wait_leader()
    hosts = wait_until(
        lambda: len(found := cluster.hosts(node)) == 2 and found,
        within=SOON,
        because="one is for coroutines and threads, one for the process",
    )
    agent = cluster.agent(node)

    # When
    start = cluster.journal_end()
    freeze(agent)

    # Then
    cluster.wait_event("lost", since=start)
    assert not any(alive(host) for host in hosts)
    cluster.wait_moved(node)
    cluster.assert_not_restarted(cluster.names_not_on(node))
    thaw(agent)
    cluster.final_check()


def test_frozen_hosts_run_no_further_instruction_when_resumed_after_their_lease(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: frozen hosts receive no renewal; the kernel must end them before they run again."""
    # Given
    cluster = fault_cluster()
    hosts = cluster.hosts(A)

    # When
    freeze(*hosts)
    seen = last_signs(cluster, cluster.names_on(A))
    wait_until(lambda: all(alarm_pending(host) for host in hosts), within=SOON, because="their lease ends")
    thaw(*hosts)

    # Then
    wait_dead(hosts, because="the alarm comes before anything else")
    theirs = {name: cluster.before[name] for name in cluster.names_on(A)}
    wait_until(lambda: cluster.client.restarted(theirs), within=SOON, because="the agent starts other hosts")
    no_sign_since(cluster, seen)
    cluster.assert_not_restarted(cluster.names_not_on(A))
    cluster.final_check()


def test_daemons_of_a_frozen_machine_run_no_further_instruction_when_it_resumes(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariant 1: old copies of every isolation might run beside their successors."""
    # Given
    cluster = fault_cluster()
    node = cluster.other_node(cluster.wait_leader()[0])
    worker, hosts = cluster.workers[node], cluster.hosts(node)

    # When
    worker.pause_tree()
    seen = last_signs(cluster, cluster.names_on(node))
    cluster.wait_moved(node)
    worker.resume_tree()

    # Then
    wait_dead(hosts, because="their alarm is pending")
    no_sign_since(cluster, seen)
    cluster.assert_not_restarted(cluster.names_not_on(node))
    cluster.final_check()


# Its daemons keep every core busy.
@pytest.mark.timing
def test_daemons_that_never_yield_die_with_the_lease_of_a_frozen_agent(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 1: code that spins, or holds the GIL in C, cannot be asked to stop and must still end."""
    # Given
    cluster = fault_cluster(source=UNRULY, wanted=DAEMONS, settings={"lease_ttl": 2.0, "heartbeat_interval": 0.4})
    agent, hosts = cluster.agent(A), cluster.hosts(A)
    cluster.flag(f"unruly-{A}")
    wait_until(lambda: seized(cluster, cluster.names_on(A)), within=SOON, because="the flag is up")

    # When
    start = cluster.journal_end()
    freeze(agent)

    # Then
    cluster.wait_event("lost", since=start)
    assert not any(alive(host) for host in hosts)
    cluster.wait_moved(A)
    cluster.assert_not_restarted(cluster.names_not_on(A))
    cluster.flag(f"unruly-{A}", up=False)
    thaw(agent)
    cluster.final_check()


# Its daemons keep every core busy.
@pytest.mark.timing
def test_a_daemon_that_holds_the_gil_past_its_lease_kills_only_its_own_host(
    fault_cluster: NewFaultCluster,
) -> None:
    """Attacks invariants 1 and 7: a host that cannot receive renewals is killed; hosts that spin still receive them."""
    # Given
    cluster = fault_cluster(source=UNRULY, wanted=DAEMONS, settings={"lease_ttl": 2.0, "heartbeat_interval": 0.4})
    seizing = [name for name in cluster.names_on(A) if name.startswith(SEIZING)]
    spinning = [name for name in cluster.names_on(A) if name.startswith(SPINNING)]

    # When
    cluster.flag(f"unruly-{A}")
    wait_dead(
        [psutil.Process(cluster.before[name].pid) for name in seizing],
        because="they keep the thread that listens from running",
    )
    cluster.flag(f"unruly-{A}", up=False)

    # Then
    theirs = {name: cluster.before[name] for name in seizing}
    wait_until(lambda: cluster.client.restarted(theirs), within=SOON, because="the agent starts them again")
    cluster.assert_not_restarted([*spinning, *cluster.names_not_on(A)])
    assert {cluster.client.locate_many(seizing)[name].node for name in seizing} == {A}
    cluster.final_check()


@pytest.mark.heavy
def test_a_host_forked_while_its_node_joins_is_bound_by_the_lease(fault_cluster: NewFaultCluster) -> None:
    """Attacks invariant 1: a process forked before its node had a lease might run for longer than any sweep waits."""
    # Given daemons that only one node may run, which is down; it joins when the first of its many hosts is ready
    cluster = fault_cluster(
        source=PICKY,
        wanted=[f"picky.{number}" for number in range(8)],
        settings={"hosts": 8, "lease_ttl": 1.8, "heartbeat_interval": 0.6},
        options={"w2": ["--daemon-labels", "own"]},
    )
    worker = cluster.workers[B]
    worker.stop()
    before = cluster.recorder.runs()

    # When its agent is frozen before the first heartbeat
    worker.start()
    agent = wait_until(lambda: cluster.agents(B), within=SOON, because="a worker starts its agent")[0]
    wait_until(lambda: all_restarted(cluster, before), within=SOON, because="the node may run them", interval=0.002)
    agent.suspend()

    # Then
    cluster.wait_event("lost")
    alive_still = {host.pid for host in cluster.hosts(B)}
    thaw(agent)
    # A host that was forked but never reported is still alive within its allowance, and runs no daemon.
    assert not alive_still & {runs[-1].pid for runs in cluster.recorder.runs().values()}
    cluster.final_check()
