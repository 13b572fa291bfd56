"""Amazon SQS, simulated by Moto: with predefined queues, where no queue can be created, and without."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import HOST, Server, free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.heavy

SOURCE = (
    EVENT_LOG
    + """
endpoint = os.environ["SQS"]
app.conf.update(
    broker_url=f"sqs://key:secret@{endpoint}//",
    task_default_queue="jobs",
    worker_enable_remote_control=False,
    broker_transport_options={
        "region": "eu-west-1",
        "is_secure": False,
        "polling_interval": 0.2,
        "wait_time_seconds": 1,
    },
)
if "PREDEFINED" in os.environ:
    app.conf.broker_transport_options["predefined_queues"] = {
        "jobs": {
            "url": f"http://{endpoint}/123456789012/jobs",
            "access_key_id": "key",
            "secret_access_key": "secret",
        }
    }

@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    await asyncio.Event().wait()

@app.task
def visit():
    note("visitor", "came")
"""
)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of an SQS with one queue, ``jobs``."""
    import boto3
    from botocore.exceptions import BotoCoreError

    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    address = f"{HOST}:{free_port()}"
    monkeypatch.setenv("SQS", address)
    port = address.rpartition(":")[2]
    with (tmp_path / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", port], stdout=log, stderr=subprocess.STDOUT
        )
    try:

        def created() -> bool:
            try:
                boto3.client("sqs", endpoint_url=f"http://{address}").create_queue(QueueName="jobs")
            except BotoCoreError:
                return False
            return True

        wait_until(created, within=60, because="the server was just started")
        yield address
    finally:
        server.kill()
        server.wait()


def test_a_worker_that_may_create_no_queue_runs_tasks_and_daemons_and_says_once_what_is_missing(
    valkey: Server,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attacks: the package could stop the worker's own tasks."""
    # Given
    monkeypatch.setenv("PREDEFINED", "1")
    with IntegrationCluster(tmp_path, valkey, SOURCE) as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]

        # When
        cluster.spawn("one", "coroutine")
        cluster.module.visit.delay()

        # Then
        cluster.wait_event("one", "runs")
        cluster.wait_event("visitor", "came")
        wait_until(
            lambda: cluster.daemons.locate("one").queue is None,  # type: ignore[union-attr]
            within=SOON,
            because="the next heartbeat says so",
        )
        (node,) = cluster.daemons.nodes()
        assert node.queue is None
        assert worker.output.count("addresses on this node name no queue") == 1
        assert worker.output.count("start up to a heartbeat later") == 1
        assert worker.stop() == 0
        assert cluster.daemons.nodes() == []


def test_a_worker_that_may_create_queues_runs_daemons_and_has_a_queue_of_its_own(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest, endpoint: str
) -> None:
    with IntegrationCluster(tmp_path, valkey, SOURCE) as cluster:
        # Given
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]

        # When
        address = cluster.spawn("one", "coroutine")
        cluster.module.visit.apply_async(queue=address.queue)

        # Then
        cluster.wait_event("one", "runs")
        cluster.wait_event("visitor", "came")
        assert address.queue is not None
        assert worker.stop() == 0
