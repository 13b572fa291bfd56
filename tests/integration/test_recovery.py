"""Daemons run again, once, after a worker, an agent, a host or a whole machine was killed or frozen."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.conftest import NewProject, NewServer, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE, Project
from tests.support.recorder import RECORDED_LAUNCHERS, Recorder
from tests.support.waiting import wait_until
from tests.support.workers import Worker

COROUTINES = [f"watch.{number}" for number in range(8)]
PROCESSES = [f"alone.{number}" for number in range(2)]
EVERYONE = COROUTINES + PROCESSES

SOURCE = (
    PRELUDE
    + RECORDED_LAUNCHERS
    + """

@watch.recovery_scanner
def all_watches():
    for number in range(8):
        yield watch.spec(f"watch.{number}", number=number)


@alone.recovery_scanner
def all_alone():
    return [alone.spec(f"alone.{number}", number=number) for number in range(2)]
"""
)

ClientOf = Callable[[Project], Client]


class RecoveryCluster:
    """Two nodes with running daemons, and a recorder of them."""

    def __init__(self, new_project: NewProject, new_worker: NewWorker, client_of: ClientOf) -> None:
        self.project = new_project(SOURCE, settings=QUICK)
        self.recorder = Recorder(self.project.folder)
        self.client = client_of(self.project)
        self.workers = {
            f"{name}@test": new_worker(self.project, name, concurrency=1, wait=False) for name in ("w1", "w2")
        }
        self.client.wait_up("w1@test", "w2@test")
        self.before = self.client.wait_running_all(EVERYONE, because="the scanners list them")

    def busiest(self) -> tuple[str, Worker, list[str]]:
        """The node that runs most, its worker, and what runs there."""
        nodes = [address.node for address in self.before.values()]
        node = max(self.workers, key=nodes.count)
        return node, self.workers[node], [name for name, address in self.before.items() if address.node == node]

    def assert_not_restarted(self, names: list[str]) -> None:
        """Assert that all other daemons kept their token."""
        now = self.client.locate_many(EVERYONE)
        for name, address in self.before.items():
            if name not in names:
                assert now[name].token == address.token, f"{name} was restarted, and nothing had happened to it"


@pytest.fixture
def cluster(new_project: NewProject, new_worker: NewWorker, client_of: ClientOf) -> RecoveryCluster:
    return RecoveryCluster(new_project, new_worker, client_of)


def of_role(worker: Worker, role: str) -> list[psutil.Process]:
    """Processes of a worker's node by what their command line begins with, or contains for the agent."""
    return [process for process in worker.tree() if any(role in part for part in process.cmdline())]


def test_daemons_of_a_killed_worker_run_elsewhere_without_waiting_for_its_lease(cluster: RecoveryCluster) -> None:
    """Attacks invariants 1 and 2: the death of a worker is noticed at once, and none of its processes runs on."""
    # Given
    node, worker, names = cluster.busiest()

    # When
    worker.kill()

    # Then
    wait_until(lambda: cluster.client.moved(names, off=node), within=SOON, because="the agent hands them over")
    cluster.assert_not_restarted(names)
    assert "lost" not in cluster.client.journal_events()
    cluster.recorder.check()


@pytest.mark.timing
def test_the_successor_of_a_killed_agent_takes_over_its_daemons(cluster: RecoveryCluster) -> None:
    """Attacks invariant 1: hosts die with their agent, and the next incarnation starts each of their daemons once."""
    # Given
    node, worker, names = cluster.busiest()
    hosts = of_role(worker, "celery_daemons.host")
    (agent,) = [one for one in worker.tree() if one.cmdline()[1:3] == ["-m", "celery_daemons.node"]]

    # When
    agent.kill()

    # Then
    affected = {name: cluster.before[name] for name in names}
    wait_until(lambda: cluster.client.restarted(affected), within=SOON, because="a new agent takes over")
    assert {cluster.client.locate_many(names)[name].node for name in names} == {node}
    assert not any(host.is_running() and host.status() != psutil.STATUS_ZOMBIE for host in hosts)
    cluster.assert_not_restarted(names)
    cluster.recorder.check()


def test_daemons_of_a_killed_host_start_again_on_their_node(cluster: RecoveryCluster) -> None:
    """Attacks invariant 2: the death of one process restarts the daemons that ran in it, and no others."""
    # Given
    node, _, names = cluster.busiest()
    pid = cluster.before[next(name for name in names if name in COROUTINES)].pid
    names = [name for name in names if cluster.before[name].pid == pid]

    # When
    os.kill(pid, signal.SIGKILL)

    # Then
    affected = {name: cluster.before[name] for name in names}
    wait_until(lambda: cluster.client.restarted(affected), within=SOON, because="the agent starts another host")
    assert {cluster.client.locate_many(names)[name].node for name in names} == {node}
    cluster.assert_not_restarted(names)
    cluster.recorder.check()


def test_daemons_of_a_lost_machine_run_elsewhere_once_its_lease_has_ended(cluster: RecoveryCluster) -> None:
    """Attacks invariant 2: only the end of the lease shows the loss of the node, and the monitor may be lost too."""
    # Given
    node, worker, names = cluster.busiest()

    # When
    worker.kill_tree()

    # Then
    wait_until(lambda: cluster.client.moved(names, off=node), within=SOON, because="the lease ends and is swept")
    cluster.assert_not_restarted(names)
    assert "lost" in cluster.client.journal_events()
    assert node not in [one.name for one in cluster.client.nodes()]
    cluster.recorder.check()


def test_a_frozen_node_is_replaced_and_runs_nothing_when_it_thaws(cluster: RecoveryCluster) -> None:
    """Attacks invariant 1: no instruction of an old copy runs beside the new one, and the node rejoins."""
    # Given
    node, worker, names = cluster.busiest()

    # When
    worker.pause_tree()
    wait_until(lambda: cluster.client.moved(names, off=node), within=SOON, because="its lease ends and is swept")
    worker.resume_tree()

    # Then
    cluster.client.wait_up("w1@test", "w2@test")
    cluster.assert_not_restarted(names)
    wait_until(lambda: cluster.client.running(*EVERYONE), within=SOON, because="all run")
    cluster.recorder.check()


def test_a_drained_worker_hands_its_daemons_over_and_exits_with_success(cluster: RecoveryCluster) -> None:
    """Attacks invariant 2: an ordinary deploy does not wait for the end of a lease."""
    # Given
    node, worker, names = cluster.busiest()

    # When
    status = worker.stop()

    # Then
    assert status == 0
    wait_until(lambda: cluster.client.moved(names, off=node), within=SOON, because="each was released when it stopped")
    assert "lost" not in cluster.client.journal_events()
    cluster.recorder.check()


def test_daemons_return_to_the_only_node_when_it_restarts(
    new_project: NewProject, new_worker: NewWorker, client_of: ClientOf
) -> None:
    """Attacks invariant 2: no other node can take over, and wanted daemons must start when the only worker returns."""
    # Given
    project = new_project(SOURCE, settings=QUICK)
    client = client_of(project)
    first = new_worker(project, "w1", concurrency=1, wait=False)
    before = client.wait_running_all(EVERYONE, because="the scanners list them")
    first.kill_tree()

    # When
    new_worker(project, "w1", concurrency=1, wait=False)

    # Then
    wait_until(lambda: client.restarted(before), within=SOON, because="a new incarnation takes the old one's daemons")
    Recorder(project.folder).check()


def test_nodes_restore_the_data_of_a_flushed_redis_and_no_daemon_restarts(
    new_server: NewServer, new_project: NewProject, new_worker: NewWorker, client_of: ClientOf
) -> None:
    """Attacks invariant 5: losing the data of Redis loses no daemon and starts none twice."""
    # Given
    server = new_server()
    project = new_project(SOURCE, broker_url=server.url, settings=QUICK)
    client = client_of(project)
    for name in ("w1", "w2"):
        new_worker(project, name, concurrency=1, wait=False)
    client.wait_up("w1@test", "w2@test")
    before = client.wait_running_all(EVERYONE, because="the scanners list them")

    # When
    server.client().flushall()

    # Then
    after = client.wait_running_all(EVERYONE, because="each node registers its daemons again")
    assert {name: one.token for name, one in after.items()} == {name: one.token for name, one in before.items()}
    wait_until(lambda: client.leader() is not None, within=SOON, because="a monitor leads again")
    Recorder(project.folder).check()
