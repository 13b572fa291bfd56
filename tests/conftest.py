"""Fixtures for every tier: servers, namespaces, projects and workers, all of them gone when their test is."""

import os
import re
import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

from tests.support.projects import Project
from tests.support.servers import Flavour, Server, ServerMissing, executable
from tests.support.workers import CeleryProcess, Worker

FLAVOURS: dict[str, Flavour] = {"redis7": "redis", "valkey9": "valkey"}
RUNNING = pytest.StashKey[list[CeleryProcess]]()

# What a shell runs in the background ignores SIGINT, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: two cores that also run servers and workers make one example slow now and then.
# A build must not fail by a new random example on a change that has nothing to do with it; at a desk it should.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


class NewServer(Protocol):
    """Starts a server for one test, to be killed, paused and restarted at will."""

    def __call__(self, *config: str, flavour: Flavour = "valkey", port: int | None = None) -> Server: ...


class NewProject(Protocol):
    """Writes a project for one test; on the session's Valkey unless told otherwise."""

    def __call__(
        self, source: str, *, broker_url: str | None = None, settings: dict[str, Any] | None = None
    ) -> Project: ...


class NewWorker(Protocol):
    """Starts a worker for one test; with ``wait=False`` returns before it is ready."""

    def __call__(self, project: Project, name: str = "w1", *, wait: bool = True, **options: Any) -> Worker: ...


def _require(flavour: Flavour) -> None:
    """Skip the test when the server is not installed, but fail a build: there it was promised."""
    try:
        executable(flavour)
    except ServerMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session", params=FLAVOURS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Debian's Redis and the embedded Valkey in turn; shared, so a test neither flushes nor stops it."""
    _require(FLAVOURS[request.param])
    with Server(FLAVOURS[request.param]) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """One Valkey for all tests for which one server is enough; shared, so a test neither flushes nor stops it."""
    _require("valkey")
    with Server("valkey") as server:
        yield server


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Start servers that belong to the test alone; the arguments are lines of configuration."""
    with ExitStack() as servers:

        def start(*config: str, flavour: Flavour = "valkey", port: int | None = None) -> Server:
            _require(flavour)
            return servers.enter_context(Server(flavour, *config, port=port))

        yield start


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Return a namespace that no other test has, now or in a later run; it begins like the test's name."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    return f"{readable[:40]}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def new_project(tmp_path: Path, request: pytest.FixtureRequest, namespace: str) -> NewProject:
    """Write the test's projects, all of them in the test's namespace."""

    def write(source: str, *, broker_url: str | None = None, settings: dict[str, Any] | None = None) -> Project:
        if broker_url is None:
            broker_url = request.getfixturevalue("valkey").url
        folder = tmp_path / f"project-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return Project(folder, source, broker_url=broker_url, namespace=namespace, settings=settings)

    return write


@pytest.fixture
def run_process(request: pytest.FixtureRequest) -> Iterator[Callable[[CeleryProcess], None]]:
    """Start any process of a project, to be shown in the report if the test fails, and ended with the test."""
    running = request.node.stash.setdefault(RUNNING, [])
    with ExitStack() as cleanup:

        def run(process: CeleryProcess) -> None:
            running.append(process)
            cleanup.callback(process.close)
            process.start()

        yield run


@pytest.fixture
def new_worker(run_process: Callable[[CeleryProcess], None]) -> NewWorker:
    """Start the test's workers; the options are those of :class:`tests.support.workers.Worker`."""

    def start(project: Project, name: str = "w1", *, wait: bool = True, **options: Any) -> Worker:
        worker = Worker(project, name, **options)
        run_process(worker)
        if wait:
            worker.wait_ready()
        return worker

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the output of a failed test's workers into its report."""
    report = yield
    if report.failed:
        for process in item.stash.get(RUNNING, []):
            report.sections.append((f"output of {process.name}", process.report))
    return report
