"""A node that is alive but cannot start processes: its daemons run elsewhere, and it recovers without help."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from celery_daemons.domain.records import JournalEntry
from celery_daemons.node.descriptors import PER_HOST, RESERVED
from tests.fault.daemon_kinds import chosen_by_ring
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster, title
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import Worker

pytestmark = pytest.mark.heavy

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher
def alone(ctx):
    ctx.stopping.wait()

@daemons.launcher
async def together(ctx):
    await ctx.stopping.wait()
"""
)
NODES = ("w1@test", "w2@test")


@pytest.fixture
def cluster(tmp_path: Path, valkey: Server) -> Iterator[IntegrationCluster]:
    """Two nodes; tests break the first one."""
    with IntegrationCluster(tmp_path, valkey, SOURCE, settings={"rebalance": "off", "vnodes": 40}) as cluster:
        cluster.worker("w1")
        cluster.worker("w2")
        yield cluster


def preferring(node: str, launcher: str) -> str:
    """Return a name for which the ring prefers a node."""
    return next(name for n in range(99) if chosen_by_ring(name := f"{launcher}.{n}", NODES) == node)


def fork_server(worker: Worker) -> psutil.Process:
    """Return the fork server of a worker's node."""
    (found,) = [one for one in worker.tree() if "celery_daemons.forkserver" in title(one)]
    return found


def wait_event(cluster: IntegrationCluster, event: str) -> JournalEntry:
    """Wait until the journal has an event of the first node, and return it."""

    def found() -> JournalEntry | None:
        return next((one for one in cluster.daemons.events(last=500) if one.event == event), None)

    entry = wait_until(found, within=SOON, because=f"the first node reports {event}")
    assert entry is not None
    assert entry.node == NODES[0]
    return entry


def test_a_node_whose_socket_folder_was_removed_gives_its_daemons_back_and_serves_again(
    cluster: IntegrationCluster,
) -> None:
    """Attacks invariant 2: daemons stayed *starting* forever, with a healthy node beside."""
    # Given a daemon that runs on the first node, whose folder for sockets a cleaner of temporary files removes
    kept = cluster.spawn(preferring(NODES[0], "together"), "together")
    # An empty node would be given the next daemon whatever the ring prefers.
    cluster.spawn(preferring(NODES[1], "together"), "together")
    broken = cluster.workers["w1"]
    (folder,) = Path(broken._temporary).glob("celery-daemons-*")
    shutil.rmtree(folder)

    # When a daemon is wanted that this node would run in a process of its own, then it runs on the other one
    assert cluster.spawn(preferring(NODES[0], "alone"), "alone").node == NODES[1]

    # And the node says why, in the journal and in its log, and serves again by itself
    assert "no process can be forked" in str(wait_event(cluster, "cannot-serve").cause)
    assert "takes no daemons: no process can be forked" in broken.output
    wait_event(cluster, "serves-again")
    second = next(name for n in range(99) if chosen_by_ring(name := f"alone.again-{n}", NODES) == NODES[0])
    assert cluster.spawn(second, "alone").node == NODES[0]

    # And what ran has run on, on the same token
    assert cluster.running(kept.name)[kept.name].token == kept.token


def test_a_node_whose_app_is_broken_on_disk_takes_no_daemons_until_it_is_repaired(cluster: IntegrationCluster) -> None:
    """Attacks invariant 2; the reason of the failed import was never logged."""
    # Given a node that has to load the app again, which a deploy has broken
    module = cluster.project.folder / "proj.py"
    sound = module.read_text()
    module.write_text("import a_module_that_is_gone\n")
    fork_server(cluster.workers["w1"]).kill()

    # When a daemon is wanted that this node would run, then it runs on the other one
    assert cluster.spawn(preferring(NODES[0], "alone"), "alone").node == NODES[1]

    # And status and log name the import that fails
    wait_event(cluster, "cannot-serve")
    assert "a_module_that_is_gone" in cluster.daemons.status().problems[NODES[0]]
    assert [node.name for node in cluster.daemons.nodes() if node.problem] == [NODES[0]]
    assert "No module named 'a_module_that_is_gone'" in cluster.workers["w1"].output
    assert cluster.daemons.pick_node(preferring(NODES[0], "alone")) == NODES[1]

    # When the app is repaired, then the node takes daemons again, without a restart of its worker
    module.write_text(sound)
    wait_event(cluster, "serves-again")
    assert cluster.daemons.status().problems == {}


def test_a_node_runs_as_many_processes_as_fit_and_names_the_limit_for_the_others(cluster: IntegrationCluster) -> None:
    """With more of them than descriptors, agent and hosts were stuck or died."""
    # Given one node, whose limit of open files leaves room for six hosts, one of which is the shared host
    cluster.workers["w2"].stop()
    agent = cluster.agent(cluster.workers["w1"])
    limit = RESERVED + 6 * PER_HOST
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (limit, limit))

    # When eight isolated daemons are wanted, then five run, and the reason for the others is the limit
    names = [f"many.{number}" for number in range(8)]
    for name in names:
        cluster.daemons.spawn(name, "alone")
    wait_event(cluster, "cannot-serve")
    wait_until(lambda: len(cluster.running(*names)) == 5, within=SOON, because="five of them fit")
    (left, *_) = set(names) - set(cluster.running(*names))
    assert "6 host processes fit into the limit of" in str(cluster.wait_status(left, "unplaceable").error)

    # And each host takes no more descriptors than are counted
    assert agent.num_fds() <= limit
    assert agent.num_fds() >= 6 * PER_HOST

    # When one of those that run is forgotten, then another runs
    gone = next(iter(cluster.running(*names)))
    cluster.daemons.forget(gone)
    wait_until(
        lambda: len(cluster.running(*(set(names) - {gone}))) == 5, within=SOON, because="there is room for another"
    )


UNLOADABLE = """
import sys
from pathlib import Path

if sys.argv[0] == "-c" and Path(__file__).with_name("broken").exists():
    raise ImportError("no driver for the database")
"""


def test_a_node_that_cannot_load_the_app_when_it_starts_joins_with_the_cause_and_serves_once_it_can(
    tmp_path: Path, valkey: Server
) -> None:
    """Attacks invariant 2: the node did not join, and only the log said why."""
    # Given an app that the worker has loaded, and that its fork server cannot load
    with IntegrationCluster(tmp_path, valkey, UNLOADABLE + SOURCE) as cluster:
        (cluster.project.folder / "broken").touch()

        # When
        worker = cluster.worker("w1")

        # Then
        assert "ImportError: no driver for the database" in cluster.daemons.status().problems[NODES[0]]
        assert "ImportError: no driver for the database" in str(wait_event(cluster, "cannot-serve").cause)
        assert "takes no daemons: " in worker.output
        shown = cluster.project.celery("daemons", "nodes").stdout
        assert "w1@test takes no daemons: " in shown
        assert "no driver for the database" in shown

        # When the cause is gone, then daemons run there, without a restart of the worker
        (cluster.project.folder / "broken").unlink()
        assert cluster.spawn("late", "alone").node == NODES[0]
        assert cluster.daemons.status().problems == {}
