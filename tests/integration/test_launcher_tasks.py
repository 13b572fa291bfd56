"""A launcher is also a Celery task: any code that sends tasks can start daemons."""

from dataclasses import asdict
from typing import Any

import pytest
from celery import chain, group

from celery_daemons import Address, SpecConflict
from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster

SOURCE = (
    EVENT_LOG
    + """
app.conf.result_backend = BROKER_URL

@daemons.launcher
async def coroutine(ctx, *args, **kwargs):
    note(ctx.name, "runs", args=args, kwargs=kwargs)
    await asyncio.Event().wait()

@daemons.launcher
def function(ctx, word):
    note(ctx.name, "runs", args=[word], kwargs={})
    ctx.stopping.wait()

@app.task
def called(number):
    return f"chained-{number}"

@app.task
def queue_of(address):
    return address["queue"]

@app.task
def five():
    return 5
"""
)


#: Two pool processes, forked after the app was loaded, that talk to Redis themselves.
shared_cluster = module_cluster(SOURCE, workers={"w1": {"concurrency": 2}}, pool="prefork")


def runs(cluster: IntegrationCluster, name: str, result: Any) -> Address:
    """The daemon's address, which a task has returned."""
    address = cluster.daemons.locate(name)
    assert address is not None
    assert result == asdict(address)
    return address


def test_delay_and_apply_async_spawn_a_daemon_and_return_its_address(cluster: IntegrationCluster) -> None:
    # When
    results = {
        "by-delay": cluster.module.coroutine.delay("by-delay", 1, two=2),
        "by-apply": cluster.module.coroutine.apply_async(args=["by-apply", 1], kwargs={"two": 2}, countdown=0.1),
        "a-function": cluster.module.function.delay("a-function", "hello"),
    }

    # Then
    for name, result in results.items():
        address = runs(cluster, name, result.get(timeout=SOON))
        assert (address.status, address.node) == ("running", "w1@test")
    assert cluster.wait_event("by-delay", "runs")["args"] == [1]
    assert cluster.wait_event("by-apply", "runs")["kwargs"] == {"two": 2}
    assert cluster.wait_event("a-function", "runs")["args"] == ["hello"]


def test_signatures_spawn_daemons_in_groups_and_in_chains(
    cluster: IntegrationCluster,
) -> None:
    # When
    apart = group(cluster.module.coroutine.s(f"in-group-{number}", number) for number in range(3)).apply_async()
    named = chain(cluster.module.called.s(7), cluster.module.coroutine.s(word="late")).apply_async()
    immutable = chain(
        cluster.module.five.s(), cluster.module.coroutine.si("immutable", 1), cluster.module.queue_of.s()
    ).apply_async()

    # Then
    for number, result in enumerate(apart.get(timeout=SOON)):
        runs(cluster, f"in-group-{number}", result)
    runs(cluster, "chained-7", named.get(timeout=SOON))
    assert cluster.wait_event("chained-7", "runs")["kwargs"] == {"word": "late"}
    address = cluster.daemons.locate("immutable")
    assert address is not None
    assert immutable.get(timeout=SOON) == address.queue
    assert cluster.wait_event("immutable", "runs")["args"] == [1]


def test_a_repeated_launch_task_returns_the_same_address_and_another_spec_fails_with_a_conflict(
    cluster: IntegrationCluster,
) -> None:
    # Given
    first = cluster.module.function.delay("once", "hello").get(timeout=SOON)

    # When / Then
    assert cluster.module.function.delay("once", "hello").get(timeout=SOON) == first
    with pytest.raises(SpecConflict, match="once: the name is taken by a spec of launcher function"):
        cluster.module.function.delay("once", "good-bye").get(timeout=SOON)
    assert len(cluster.events("once", "runs")) == 1


def test_celery_call_spawns_a_daemon(cluster: IntegrationCluster) -> None:
    done = cluster.project.celery("call", "celery_daemons.launch.function", "--args", '["by-call", "hello"]')

    assert done.returncode == 0
    result = cluster.module.app.AsyncResult(done.stdout.strip())
    runs(cluster, "by-call", result.get(timeout=SOON))
    assert cluster.wait_event("by-call", "runs")["args"] == ["hello"]
