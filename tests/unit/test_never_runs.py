"""A function whose call only makes something that has yet to run: one clear error instead of endless restarts."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_daemons import ConfigurationError, Daemons, Launcher
from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.runs import End
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.errors import NotADaemon
from celery_daemons.host.base import end_of_run
from celery_daemons.host.current_run import Run
from celery_daemons.node.supervision.commands import SendReleases
from tests.unit.supervisor_harness import LAUNCHERS, SupervisorHarness, X


def registered(factory: Callable[..., Any], **options: Any) -> Launcher:
    """Register a launcher."""
    return Daemons(Celery(), redis_url="redis://localhost").register_launcher("feed", Launcher(factory, **options))


def audited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function as many retry, cache and tracing decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def feed(ctx: object) -> None:
    """Run forever."""
    await asyncio.Event().wait()


@pytest.mark.filterwarnings("error")
def test_a_coroutine_under_an_ordinary_decorator_is_an_error_that_says_so() -> None:
    """It was never awaited: `finished by itself`, again and again, and a warning about a line of this package."""
    launcher = registered(audited(feed))

    with pytest.raises(NotADaemon, match=r"launcher feed: its function returned a coroutine.*has to be an async def"):
        launcher.start(object(), (), {})


def test_a_class_whose_method_returns_a_coroutine_is_the_same_error() -> None:
    class Feed:
        def run(self, ctx: object) -> Any:
            return feed(ctx)

    with pytest.raises(NotADaemon, match="returned a coroutine"):
        registered(Feed).start(object(), (), {})


def test_a_generator_under_an_ordinary_decorator_is_the_same_error() -> None:
    def yields(ctx: object) -> Iterator[int]:
        yield 1

    with pytest.raises(NotADaemon, match="returned a generator"):
        registered(audited(yields)).start(object(), (), {})


def test_a_function_that_yields_is_refused_when_it_is_registered() -> None:
    def yields(ctx: object) -> Iterator[int]:
        yield 1

    async def yields_later(ctx: object) -> AsyncIterator[int]:
        yield 1

    class Feed:
        def run(self, ctx: object) -> Iterator[int]:
            yield 1

    for factory in (yields, yields_later, Feed):
        with pytest.raises(ConfigurationError, match="launcher feed: its function yields"):
            registered(factory)


def test_what_a_decorated_function_returns_at_its_end_does_not_matter() -> None:
    def counts(ctx: object) -> list[int]:
        return [1, 2]

    assert registered(audited(counts)).start(object(), (), {}) == [1, 2]


def test_a_run_that_no_restart_will_help_is_reported_as_hopeless() -> None:
    run = Run(DaemonName("x"), LauncherName("tail"), Token(1))

    assert end_of_run(run, stopping=False, error=NotADaemon("no")).hopeless
    assert not end_of_run(run, stopping=False, error=ConfigurationError("no")).hopeless


def test_a_hopeless_run_is_failed_at_once_and_retried_rarely() -> None:
    # Given a daemon that runs
    harness = SupervisorHarness()
    harness.runs(1)

    # When its run ends without hope
    end = End(X, Token(1), Outcome.FAILED, "returned a coroutine", None, True)
    harness.do(harness.supervisor.ended(harness.host, [end], now=harness.now))

    # Then it is failed after one start, on this node, and claimed again after the longest delay
    assert [report.status for report in harness.reports] == [DaemonStatus.RUNNING, DaemonStatus.FAILED]
    assert harness.of(SendReleases) == []
    longest = LAUNCHERS[LauncherName("tail")].backoff_max
    harness.after(longest - 0.1)
    assert harness.claims == [1]
    harness.after(0.2)
    assert harness.claims == [1, 1]
