"""The signals around daemons and scanners: where they are sent, and what a receiver can do there."""

import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, IntegrationCluster

SOURCE = (
    EVENT_LOG
    + """
from contextvars import ContextVar
from celery_daemons.signals import (
    daemon_beat, daemon_failed, daemon_started, daemon_stopped, scan_finished, scan_started
)

context = ContextVar("context", default=None)
tokens = {}

@daemon_started.connect
def enter(sender, ctx, **_):
    tokens[ctx.name] = context.set(ctx.name)
    note(ctx.name, "started", sender=sender)

@daemon_beat.connect(sender="coroutine")
def beat(ctx, **_):
    note(ctx.name, "beat", context=context.get())

def leave(name):
    # Raises an exception in another context than that of enter.
    context.reset(tokens.pop(name))

@daemon_stopped.connect
def stopped(ctx, **_):
    leave(ctx.name)
    note(ctx.name, "stopped", context=context.get())

@daemon_failed.connect
def failed(ctx, exception, **_):
    leave(ctx.name)
    note(ctx.name, "failed", context=context.get(), exception=repr(exception))

@daemon_started.connect
def raises(**_):
    raise RuntimeError("a receiver failed")

@scan_started.connect
def enter_scan(launcher, **_):
    tokens[launcher.name] = context.set(launcher.name)

@scan_finished.connect
def leave_scan(launcher, **_):
    leave(launcher.name)
    note(launcher.name, "scanned", context=context.get())

async def coroutine_body(ctx, fail=False):
    note(ctx.name, "runs", context=context.get())
    await ctx.sleep(0.01)
    ctx.beat()
    if fail:
        raise ValueError("on purpose")
    await ctx.stopping.wait()

def body(ctx, fail=False, fork=False):
    note(ctx.name, "runs", context=context.get())
    if fork and os.fork() == 0:
        return
    ctx.sleep(0.01)
    if fail:
        raise ValueError("on purpose")
    ctx.stopping.wait()

coroutine = daemons.launcher("coroutine", backoff=60)(coroutine_body)
alone = daemons.launcher("alone", isolation="process", backoff=60)(coroutine_body)
thread = daemons.launcher("thread", isolation="thread", backoff=60)(body)
process = daemons.launcher("process", backoff=60)(body)

@coroutine.recovery_scanner
async def generated():
    note("coroutine", "scans", context=context.get())
    for _ in ():
        yield None

@thread.recovery_scanner
async def awaited():
    note("thread", "scans", context=context.get())
    raise ValueError("on purpose")

@process.recovery_scanner
def plain():
    note("process", "scans", context=context.get())
    yield from ()
"""
)
KINDS = ("coroutine", "alone", "thread", "process")

shared_cluster = module_cluster(SOURCE)


@pytest.mark.parametrize("launcher", KINDS)
def test_a_receiver_prepares_the_context_of_a_daemon_and_cleans_up_in_it(
    cluster: IntegrationCluster,
    launcher: str,
) -> None:
    # Given
    name = f"{launcher}-1"

    # When
    cluster.spawn(name, launcher)
    runs = cluster.wait_event(name, "runs")
    cluster.daemons.stop(name, wait=30)

    # Then
    assert runs["context"] == name
    ended = cluster.wait_event(name, "stopped")
    assert ended["context"] is None
    (started,) = cluster.events(name, "started")
    assert started["sender"] == launcher
    assert {started["pid"], ended["pid"]} == {runs["pid"]}
    assert {started["thread"], ended["thread"]} == {runs["thread"]}
    beats = cluster.events(name, "beat")
    assert [one["context"] for one in beats] == ([name, name] if launcher == "coroutine" else [])


@pytest.mark.parametrize("launcher", KINDS)
def test_a_receiver_gets_the_exception_of_a_daemon(cluster: IntegrationCluster, launcher: str) -> None:
    name = f"{launcher}-2"

    cluster.daemons.spawn(name, launcher, kwargs={"fail": True})

    ended = cluster.wait_event(name, "failed")
    assert (ended["exception"], ended["context"]) == ("ValueError('on purpose')", None)
    assert cluster.events(name, "stopped") == []


@pytest.mark.parametrize("launcher", ["thread", "process"])
def test_a_process_that_a_daemon_has_forked_sends_no_signal(cluster: IntegrationCluster, launcher: str) -> None:
    """A receiver there would close connections that the daemon still uses."""
    name = f"{launcher}-3"

    cluster.spawn(name, launcher, fork=True)
    cluster.wait_event(name, "runs")
    cluster.daemons.stop(name, wait=30)

    cluster.wait_event(name, "stopped")
    assert len(cluster.events(name, "stopped")) == 1


@pytest.mark.parametrize("launcher", ["coroutine", "thread", "process"])
def test_a_receiver_prepares_the_context_of_a_scanner_and_cleans_up_in_it(
    cluster: IntegrationCluster,
    launcher: str,
) -> None:
    assert cluster.wait_event(launcher, "scans")["context"] == launcher
    assert cluster.wait_event(launcher, "scanned")["context"] is None


def test_an_exception_of_a_receiver_is_logged_and_the_daemon_runs(cluster: IntegrationCluster) -> None:
    cluster.spawn("coroutine-4", "coroutine")

    cluster.wait_event("coroutine-4", "runs")
    assert "a receiver failed" in cluster.worker().output
