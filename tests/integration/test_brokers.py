"""Any broker transport works, and a lost broker connection stops no daemon."""

from pathlib import Path

import pytest
from kombu.connection import Connection

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    await asyncio.Event().wait()

@daemons.launcher
def function(ctx):
    note(ctx.name, "runs")
    ctx.stopping.wait()

@app.task
def visit(number):
    note("visitor", "came", number=number)
"""
)

#: A broker made of folders.
FOLDERS = """
for folder in ("queue", "control", "processed"):
    os.makedirs(f"{FOLDER}/{folder}", exist_ok=True)

app.conf.broker_transport_options = {
    "data_folder_in": FOLDER + "/queue", "data_folder_out": FOLDER + "/queue", "control_folder": FOLDER + "/control",
    "store_processed": True, "processed_folder": FOLDER + "/processed", "polling_interval": 0.1,
}
"""


def visits(cluster: IntegrationCluster) -> set[int]:
    """The numbers of the tasks that ran."""
    return {entry["number"] for entry in cluster.events("visitor", "came")}


def test_a_broker_other_than_redis_carries_spawn_tasks_and_the_queue_of_the_node(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given: tasks go through folders, the address book is in Redis
    with IntegrationCluster(tmp_path, valkey, SOURCE + FOLDERS, broker_url="filesystem://") as cluster:
        request.node.stash[RUNNING] = [cluster.worker("w1", pool="threads")]

        # When
        address = cluster.spawn("one", "coroutine")
        cluster.spawn("two", "function")
        cluster.module.visit.delay(1)
        cluster.module.visit.apply_async([2], queue=address.queue)

        # Then
        wait_until(lambda: visits(cluster) == {1, 2}, within=SOON, because="the worker consumes both queues")
        processed = cluster.project.folder / "processed"
        wait_until(
            lambda: any(".spawn." in message.name for message in processed.iterdir()),
            within=SOON,
            because="the spawn task came through the broker",
        )
        assert cluster.workers["w1"].stop() == 0
        assert cluster.daemons.nodes() == []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_lost_broker_connection_leaves_daemons_running_and_is_restored_with_all_queues(
    valkey: Server, proxy: Proxy, tmp_path: Path, request: pytest.FixtureRequest, pool: str
) -> None:
    """A worker that has reconnected to its broker must also consume all its queues again."""
    # Given: only the broker is behind the proxy
    with IntegrationCluster(tmp_path, valkey, SOURCE, broker_url=proxy.url, pool=pool) as cluster:
        worker = cluster.worker()
        request.node.stash[RUNNING] = [worker]
        before = [cluster.spawn("one", "coroutine"), cluster.spawn("two", "function")]
        agent = cluster.agent(worker)

        # When
        proxy.cut()
        wait_until(
            lambda: "Connection to broker lost" in worker.output and worker.output.count("Connected to redis") == 2,
            within=SOON,
            because="the broker's connections were reset",
        )

        # Then the worker takes tasks again from both queues
        cluster.module.visit.delay(1)
        cluster.module.visit.apply_async([2], queue=before[0].queue)
        wait_until(lambda: visits(cluster) == {1, 2}, within=SOON, because="the worker has its connection again")

        # Then the worker consumes its spawn queue again, including messages other than spawn tasks
        with Connection(valkey.url) as broker, broker.SimpleQueue(before[0].queue + ".spawn") as spawns:
            spawns.put({"what": "is this"})
        wait_until(
            lambda: "message-rejected" in {entry.event for entry in cluster.daemons.events()},
            within=SOON,
            because="the spawn queue is consumed",
        )
        cluster.spawn("three", "coroutine")

        # Then the agent and the daemons have noticed nothing
        assert cluster.agent(worker) == agent
        assert [cluster.daemons.locate(address.name) for address in before] == before
        assert [len(cluster.events(name, "runs")) for name in ("one", "two")] == [1, 1]
