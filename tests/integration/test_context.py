"""The context and the arguments of a daemon, and how the daemon is asked and then forced to stop."""

import datetime as datetime_module
import os
import signal
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import psutil
import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.processes import wait_gone
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
def fields(ctx):
    return {"launcher": ctx.launcher, "node": ctx.node, "token": ctx.token, "stopping": ctx.stopping.is_set()}

@daemons.launcher
async def coroutine(ctx, *args, **kwargs):
    note(ctx.name, "runs", given=repr((args, kwargs)), **fields(ctx))
    ctx.log.info("speaks %s", "up")
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        note(ctx.name, "cancelled", **fields(ctx))
        raise

@daemons.launcher
def function(ctx, *args, **kwargs):
    note(ctx.name, "runs", given=repr((args, kwargs)), **fields(ctx))
    ctx.log.info("speaks %s", "up")
    ctx.stopping.wait()
    note(ctx.name, "stops", **fields(ctx))

@daemons.launcher(isolation="thread")
def threaded(ctx, *args, **kwargs):
    function(ctx, *args, **kwargs)

@daemons.launcher(isolation="process")
async def own_loop(ctx, *args, **kwargs):
    await coroutine(ctx, *args, **kwargs)

@daemons.launcher
def sleeper(ctx):
    note(ctx.name, "sleeps")
    began = time.monotonic()
    ctx.sleep(0.2)
    nap = time.monotonic() - began
    note(ctx.name, "napped", nap=nap, **fields(ctx))
    ctx.sleep(1000)
    note(ctx.name, "woke", **fields(ctx))

@daemons.launcher(isolation="thread")
def thread_sleeper(ctx):
    sleeper(ctx)

@daemons.launcher
async def coroutine_sleeper(ctx):
    note(ctx.name, "sleeps")
    began = time.monotonic()
    await ctx.sleep(0.2)
    note(ctx.name, "napped", nap=time.monotonic() - began, **fields(ctx))
    try:
        await ctx.sleep(1000)
    finally:
        note(ctx.name, "woke", **fields(ctx))

@daemons.launcher(stop_grace=0.5)
def deaf(ctx):
    note(ctx.name, "runs", **fields(ctx))
    while True:
        time.sleep(0.02)

@daemons.launcher(stop_grace=0.5)
async def deaf_coroutine(ctx):
    note(ctx.name, "runs", **fields(ctx))
    while True:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            pass

@daemons.launcher(stop_grace=0.5)
async def stuck_coroutine(ctx):
    note(ctx.name, "runs", **fields(ctx))
    while True:
        time.sleep(0.02)

@daemons.launcher(stop_grace=20)
async def slow_to_stop(ctx):
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(1)
        note(ctx.name, "tidied up", **fields(ctx))
"""
)

#: What Celery's own JSON carries.
VALUES: dict[str, Any] = {
    "when": datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "utc": datetime(2026, 1, 1, tzinfo=UTC),
    "naive": datetime(2026, 1, 1, 12),  # noqa: DTZ001 - to be handed on as it is
    "day": date(2024, 2, 29),
    "clock": time(12, 30, 1),
    "id": UUID("12345678-1234-5678-1234-567812345678"),
    "price": Decimal("1.10"),
    "raw": b"\x00\xff",
    "text": "Grüße, 世界 🦊 \u2028 \x00 \"quoted\" 'too' \\",
    "nested": {"list": [1, 2.5, None, True, {"deep": ["é"]}], "empty": {}, "big": 2**53 + 1, "small": -1e-300},
    "name": "not the daemon's",
}


shared_cluster = module_cluster(SOURCE)


@pytest.mark.parametrize("launcher", ["coroutine", "function", "threaded", "own_loop"])
def test_the_context_identifies_the_daemon_and_receives_the_request_to_stop(
    cluster: IntegrationCluster, launcher: str
) -> None:
    # When
    address = cluster.spawn(f"me-{launcher}", launcher)

    # Then
    told = {
        key: cluster.wait_event(address.name, "runs")[key] for key in ("launcher", "node", "token", "stopping", "pid")
    }
    assert told == {
        "launcher": launcher,
        "node": "w1@test",
        "token": address.token,
        "stopping": False,
        "pid": address.pid,
    }
    wait_until(
        lambda: f"daemon {address.name}] speaks up" in cluster.workers["w1"].output, within=SOON, because="it logs"
    )

    # When
    cluster.daemons.stop(address.name, wait=SOON)

    # Then: a coroutine by its cancellation, the others by the event
    entry = cluster.wait_event(address.name, "cancelled" if launcher in ("coroutine", "own_loop") else "stops")
    assert (entry["stopping"], entry["token"]) == (True, address.token)


@pytest.mark.parametrize("launcher", ["sleeper", "thread_sleeper", "coroutine_sleeper"])
def test_a_sleep_ends_early_when_the_daemon_is_asked_to_stop(cluster: IntegrationCluster, launcher: str) -> None:
    # Given
    cluster.spawn(launcher, launcher)
    nap = cluster.wait_event(launcher, "napped")
    assert 0.19 < nap["nap"] < 5
    assert nap["stopping"] is False

    # When
    cluster.daemons.stop(launcher, wait=SOON)

    # Then
    assert cluster.wait_event(launcher, "woke")["stopping"] is True


def test_sigterm_from_outside_stops_an_isolated_daemon_gracefully_and_the_daemon_restarts(
    cluster: IntegrationCluster,
) -> None:
    # Given
    address = cluster.spawn("signalled", "function")

    # When
    os.kill(address.pid, signal.SIGTERM)

    # Then
    assert cluster.wait_event("signalled", "stops")["stopping"] is True
    assert cluster.wait_restarted(address).pid != address.pid


def test_arguments_arrive_as_they_were_given(cluster: IntegrationCluster) -> None:
    # When
    for launcher in ("coroutine", "function"):
        cluster.daemons.spawn(
            f"given-{launcher}", launcher, args=[VALUES["text"], VALUES["when"], [VALUES["id"]]], kwargs=VALUES
        )

    # Then
    for launcher in ("coroutine", "function"):
        given = cluster.wait_event(f"given-{launcher}", "runs")["given"]
        args, kwargs = eval(given, {"datetime": datetime_module, "UUID": UUID, "Decimal": Decimal})  # noqa: S307
        assert args == (VALUES["text"], VALUES["when"], [VALUES["id"]])
        assert {name: (type(value), value) for name, value in kwargs.items()} == {
            name: (type(value), value) for name, value in VALUES.items()
        }
        assert kwargs["when"].utcoffset() == VALUES["when"].utcoffset()


def test_a_daemon_gets_its_whole_grace_to_stop(cluster: IntegrationCluster) -> None:
    # Given
    cluster.spawn("tidy", "slow_to_stop")

    # When
    cluster.daemons.stop("tidy", wait=SOON)

    # Then
    assert cluster.wait_event("tidy", "tidied up")["stopping"] is True


def test_a_process_that_does_not_stop_in_its_grace_is_killed(cluster: IntegrationCluster) -> None:
    # Given
    address = cluster.spawn("deaf", "deaf")
    process = psutil.Process(address.pid)

    # When
    cluster.daemons.stop("deaf", wait=SOON)

    # Then
    wait_gone([process])
    (record,) = cluster.daemons.list()
    assert (record.status, record.desired, record.node) == ("stopped", "stopped", None)
    assert len(cluster.events("deaf", "runs")) == 1


@pytest.mark.parametrize("launcher", ["deaf_coroutine", "stuck_coroutine"])
def test_a_coroutine_that_exceeds_its_grace_kills_its_host_and_restarts_each_neighbour_once(
    cluster: IntegrationCluster, launcher: str
) -> None:
    # Given
    names = [f"beside-{launcher}-{number}" for number in range(5)]
    before = [cluster.spawn(name, "coroutine") for name in names]
    alone = cluster.spawn(f"apart-{launcher}", "function")
    stubborn = cluster.spawn(launcher, launcher)
    host = psutil.Process(stubborn.pid)
    assert {address.pid for address in before} == {host.pid}

    # When
    cluster.daemons.stop(launcher, wait=SOON)

    # Then
    wait_gone([host])
    after = [cluster.wait_restarted(address) for address in before]
    assert len({address.pid for address in after}) == 1
    assert after[0].pid != host.pid
    # A daemon counts as running a moment before its own code logs that.
    for name in names:
        cluster.wait_event(name, "runs", times=2)
    assert [len(cluster.events(name, "runs")) for name in names] == [2] * 5
    assert {record.restarts for record in cluster.daemons.list(launcher="coroutine")} == {1}

    # Then daemons in processes of their own have noticed nothing
    assert cluster.daemons.locate(alone.name) == alone
