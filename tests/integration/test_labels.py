"""Labels and weight on the command line of a worker decide where daemons run."""

import pytest

from celery_daemons.errors import DaemonsError
from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher
async def anywhere(ctx):
    await asyncio.Event().wait()

@daemons.launcher(labels=["gpu"])
async def on_gpu(ctx):
    await asyncio.Event().wait()

@daemons.launcher(labels=["gpu", "arm"])
async def on_arm_gpu(ctx):
    await asyncio.Event().wait()

@app.task
def visit(number):
    note("visitor", "came", ppid=os.getppid())
"""
)


#: A plain worker, and one with labels that takes three times as many daemons.
shared_cluster = module_cluster(
    SOURCE,
    workers={"plain": {}, "strong": {"options": ["--daemon-labels", "ssd, gpu", "--daemon-weight", "3"]}},
    settings={"load_factor": 1.0},
)


def test_the_labels_and_weight_from_the_command_line_are_those_of_the_node(cluster: IntegrationCluster) -> None:
    found = {node.name: (node.labels, node.weight) for node in cluster.daemons.nodes()}

    assert found == {"plain@test": ((), 1.0), "strong@test": (("gpu", "ssd"), 3.0)}


def test_a_daemon_runs_only_on_nodes_with_all_its_labels_and_is_unplaceable_without_any(
    cluster: IntegrationCluster,
) -> None:
    # When
    names = [f"gpu-{number}" for number in range(8)]
    for name in names:
        cluster.daemons.spawn(name, "on_gpu")
    cluster.daemons.spawn("nowhere", "on_arm_gpu")

    # Then
    wait_until(
        lambda: {address.node for address in cluster.running(*names).values()} == {"strong@test"},
        within=SOON,
        because="only one node carries the label",
    )
    (left,) = wait_until(
        lambda: list(cluster.daemons.list(status="unplaceable")), within=SOON, because="no node carries both labels"
    )
    assert left.name == "nowhere"
    assert left.error == "no node that is up and has launcher on_arm_gpu carries the labels arm,gpu"


def test_a_move_to_a_node_without_the_labels_is_refused_and_the_daemon_runs_on(cluster: IntegrationCluster) -> None:
    # Given
    before = cluster.spawn("rooted", "on_gpu")

    # When
    with pytest.raises(DaemonsError, match=r"'plain@test' is not a node .* the labels gpu; suitable nodes: none"):
        cluster.daemons.move("rooted", to="plain@test")
    with pytest.raises(DaemonsError, match=r"no other node is up and has launcher on_gpu and the labels gpu"):
        cluster.daemons.move("rooted")

    # Then
    assert cluster.daemons.locate("rooted") == before


def test_a_node_of_three_times_the_weight_takes_three_times_as_many_daemons(cluster: IntegrationCluster) -> None:
    # When
    names = [f"any-{number}" for number in range(40)]
    for name in names:
        cluster.daemons.spawn(name, "anywhere")
    wait_until(lambda: len(cluster.running(*names)) == 40, within=SOON, because="all are placed")

    # Then, with no tolerance above the fair share
    assert {node.name: node.daemons for node in cluster.daemons.nodes()} == {"plain@test": 10, "strong@test": 30}


def test_a_task_on_a_daemon_s_queue_runs_beside_the_daemon(cluster: IntegrationCluster) -> None:
    # Given
    address = cluster.spawn("beside", "on_gpu")
    before = len(cluster.events("visitor", "came"))

    # When
    for number in range(10):
        cluster.module.visit.apply_async([number], queue=address.queue)

    # Then
    cluster.wait_event("visitor", "came", times=before + 10)
    assert {entry["pid"] for entry in cluster.events("visitor", "came")[before:]} == {cluster.workers["strong"].pid}
