"""A launcher is a task factory too: whatever sends Celery tasks can start daemons."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from celery import chain, group

from celery_daemons import Address, SpecConflict
from tests.conftest import RUNNING
from tests.support.crews import DIARY, SOON, Crew
from tests.support.servers import Server

SOURCE = (
    DIARY
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


@pytest.fixture(scope="module")
def shared(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two pool processes, forked after the app was loaded, that talk to Redis themselves."""
    with Crew(tmp_path_factory.mktemp("tasks"), valkey, SOURCE, pool="prefork") as crew:
        crew.worker(concurrency=2)
        yield crew


@pytest.fixture
def crew(shared: Crew, request: pytest.FixtureRequest) -> Iterator[Crew]:
    request.node.stash[RUNNING] = list(shared.workers.values())
    yield shared
    shared.forget_all()


def runs(crew: Crew, name: str, result: Any) -> Address:
    """The daemon's address, which a task has returned."""
    address = crew.daemons.locate(name)
    assert address is not None
    assert result == asdict(address)
    return address


def test_delay_and_apply_async_spawn_a_daemon_and_return_its_address(crew: Crew) -> None:
    # When
    results = {
        "by-delay": crew.module.coroutine.delay("by-delay", 1, two=2),
        "by-apply": crew.module.coroutine.apply_async(args=["by-apply", 1], kwargs={"two": 2}, countdown=0.1),
        "a-function": crew.module.function.delay("a-function", "hello"),
    }

    # Then
    for name, result in results.items():
        address = runs(crew, name, result.get(timeout=SOON))
        assert (address.status, address.node) == ("running", "w1@test")
    assert crew.noted("by-delay", "runs")["args"] == [1]
    assert crew.noted("by-apply", "runs")["kwargs"] == {"two": 2}
    assert crew.noted("a-function", "runs")["args"] == ["hello"]


def test_signatures_spawn_in_groups_and_in_chains_that_pass_the_name_in_and_the_address_on(crew: Crew) -> None:
    # When
    apart = group(crew.module.coroutine.s(f"in-group-{number}", number) for number in range(3)).apply_async()
    named = chain(crew.module.called.s(7), crew.module.coroutine.s(word="late")).apply_async()
    immutable = chain(
        crew.module.five.s(), crew.module.coroutine.si("immutable", 1), crew.module.queue_of.s()
    ).apply_async()

    # Then
    for number, result in enumerate(apart.get(timeout=SOON)):
        runs(crew, f"in-group-{number}", result)
    runs(crew, "chained-7", named.get(timeout=SOON))
    assert crew.noted("chained-7", "runs")["kwargs"] == {"word": "late"}
    address = crew.daemons.locate("immutable")
    assert address is not None
    assert immutable.get(timeout=SOON) == address.queue
    assert crew.noted("immutable", "runs")["args"] == [1]


def test_the_same_task_again_returns_the_same_address_and_another_spec_fails_with_the_conflict(crew: Crew) -> None:
    # Given
    first = crew.module.function.delay("once", "hello").get(timeout=SOON)

    # When / Then
    assert crew.module.function.delay("once", "hello").get(timeout=SOON) == first
    with pytest.raises(SpecConflict, match="once: the name is taken by a spec of launcher function"):
        crew.module.function.delay("once", "good-bye").get(timeout=SOON)
    assert len(crew.diary("once", "runs")) == 1


def test_celery_call_spawns_a_daemon(crew: Crew) -> None:
    done = crew.project.celery("call", "celery_daemons.launch.function", "--args", '["by-call", "hello"]')

    assert done.returncode == 0
    result = crew.module.app.AsyncResult(done.stdout.strip())
    runs(crew, "by-call", result.get(timeout=SOON))
    assert crew.noted("by-call", "runs")["args"] == ["hello"]
