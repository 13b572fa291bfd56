"""RabbitMQ refuses declarations that differ and operations that a user may not do, and then closes the channel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.wire.spawn_task import spawn_queue_name, task_queue_name
from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.rabbitmq import RabbitMQ
from tests.support.servers import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

SOURCE = (
    EVENT_LOG
    + """
app.conf.task_queue_max_priority = 5

@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    await asyncio.Event().wait()

@app.task
def visit(number):
    note("visitor", "came", number=number)
"""
)


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


def visits(cluster: IntegrationCluster) -> set[int]:
    return {entry["number"] for entry in cluster.events("visitor", "came")}


def test_the_queues_of_a_node_have_the_priorities_of_the_app_and_are_removed(
    rabbitmq: RabbitMQ, valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Given
    with IntegrationCluster(tmp_path, valkey, SOURCE, broker_url=rabbitmq.url(), pool="prefork") as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]
        queues = {
            "spawn_queue": spawn_queue_name(cluster.namespace, worker.node),
            "task_queue": task_queue_name(cluster.namespace, worker.node),
        }

        # When
        address = cluster.spawn("one", "coroutine")
        cluster.module.visit.apply_async([1], queue=address.queue)

        # Then
        wait_until(lambda: visits(cluster) == {1}, within=SOON, because="the worker consumes the queue")
        assert address.queue == queues["task_queue"]

        # When its queues are removed while it consumes them, then they are kept; after its end, they are not
        dispatcher = Dispatcher(cluster.module.app)
        dispatcher.start()
        removed: list[bool] = []
        dispatcher.remove_queues(**queues, is_gone=lambda: True, on_removed=lambda: removed.append(True))
        dispatcher.flush(timeout=SOON)
        assert not removed
        assert worker.stop() == 0
        dispatcher.remove_queues(**queues, is_gone=lambda: True, on_removed=lambda: removed.append(True))
        wait_until(lambda: removed, within=SOON, because="nobody consumes them")
        assert cluster.namespace + "." not in rabbitmq.control("list_queues", "name")
        assert cluster.namespace + "." not in rabbitmq.control("list_exchanges", "name")


@pytest.mark.parametrize("kind", ["configure", "read"])
def test_a_worker_whose_user_may_not_use_the_queues_of_the_node_runs_tasks_and_daemons(
    rabbitmq: RabbitMQ, valkey: Server, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Attacks: the package could stop the worker's own tasks."""
    # Given a user that may use every queue but those of the node: their names have a dot after the namespace
    user = f"restricted-{kind}"
    rabbitmq.control("add_user", user, user)
    limited = "^(?!cluster-[0-9a-f]+[.]).*$"
    allowed = {"configure": ".*", "write": ".*", "read": ".*", kind: limited}
    rabbitmq.control("set_permissions", user, allowed["configure"], allowed["write"], allowed["read"])
    with IntegrationCluster(tmp_path, valkey, SOURCE, broker_url=rabbitmq.url(user), pool="prefork") as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]

        # When
        cluster.spawn("one", "coroutine")
        for number in range(10):
            cluster.module.visit.delay(number)

        # Then
        wait_until(lambda: visits(cluster) == set(range(10)), within=SOON, because="its own queue is not refused")
        wait_until(
            lambda: cluster.daemons.locate("one").queue is None,  # type: ignore[union-attr]
            within=SOON,
            because="the next heartbeat says so",
        )
        assert worker.output.count("addresses on this node name no queue") in (1, 2), "once per different error"
        assert worker.output.count("Connection to broker lost") <= 1
        assert worker.stop() == 0
