"""Fixtures for all tests: servers, namespaces, projects and workers, each removed at the end of its test or session."""

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

#: The order of test files in a parallel run, as prefixes of their paths: files that take longest start first. A file is
#: the unit of distribution, because its tests often share workers that the first of them starts.
LONGEST_FIRST = (
    "tests/integration/test_cli.py",
    "tests/fault/test_balance.py",
    "tests/integration/test_cli_placement.py",
    "tests/fault/",
    "tests/integration/test_cli",
    "tests/unit/test_protocol",
    "tests/integration/",
    "tests/support_tests/",
    "tests/typing/",
)

# A shell starts background jobs with SIGINT ignored, and every process that a test interrupts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machine also runs servers and workers, so single examples can be slow.
# In CI, examples are fixed: a new random example must not fail a build whose change has nothing to do with it.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


class NewServer(Protocol):
    """Starts a server for one test, to be killed, paused and restarted at will."""

    def __call__(self, *config: str, flavour: Flavour = "valkey", port: int | None = None) -> Server: ...


class NewProject(Protocol):
    """Writes a project for one test, by default on the session's Valkey."""

    def __call__(
        self, source: str, *, broker_url: str | None = None, settings: dict[str, Any] | None = None
    ) -> Project: ...


class NewWorker(Protocol):
    """Starts a worker for one test; with ``wait=False`` returns before the worker is ready."""

    def __call__(self, project: Project, name: str = "w1", *, wait: bool = True, **options: Any) -> Worker: ...


def _missing_servers() -> dict[str, str]:
    """Return, for each server that is not installed, what to install."""
    missing: dict[str, str] = {}
    for name, flavour in FLAVOURS.items():
        try:
            executable(flavour)
        except ServerMissing as error:
            missing[name] = str(error)
    return missing


def _require(flavour: Flavour) -> None:
    """Skip the test if the server is not installed."""
    try:
        executable(flavour)
    except ServerMissing as missing:
        pytest.skip(str(missing))


def pytest_configure() -> None:
    """Refuse to run in CI without every server; elsewhere the tests that need a missing server are left out."""
    missing = _missing_servers()
    if missing and os.environ.get("CI"):
        raise pytest.UsageError("; ".join(missing.values()))


def pytest_report_header() -> list[str]:
    """Report each missing server in one line, instead of one line per test that needs it."""
    return [f"tests on {name} are left out: {remedy}" for name, remedy in _missing_servers().items()]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests on missing servers; in a parallel run, start with the files that take longest."""
    missing = set(_missing_servers())
    left_out = [item for item in items if missing.intersection(map(str, _parameters(item)))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _parameters(item: pytest.Item) -> list[object]:
    callspec = getattr(item, "callspec", None)
    return list(callspec.params.values()) if callspec else []


def _rank(item: pytest.Item) -> int:
    return next(
        (rank for rank, prefix in enumerate(LONGEST_FIRST) if item.nodeid.startswith(prefix)), len(LONGEST_FIRST)
    )


@pytest.fixture(scope="session", params=FLAVOURS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return Debian's Redis and the embedded Valkey in turn; shared, so no test may flush or stop the server."""
    _require(FLAVOURS[request.param])
    with Server(FLAVOURS[request.param]) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """Return one Valkey, shared by all tests that need one server; no test may flush or stop the server."""
    _require("valkey")
    with Server("valkey") as server:
        yield server


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Start servers for one test only; the arguments are lines of configuration."""
    with ExitStack() as servers:

        def start(*config: str, flavour: Flavour = "valkey", port: int | None = None) -> Server:
            _require(flavour)
            return servers.enter_context(Server(flavour, *config, port=port))

        yield start


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Return a unique namespace that begins like the name of the test."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    return f"{readable[:40]}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def new_project(tmp_path: Path, request: pytest.FixtureRequest, namespace: str) -> NewProject:
    """Write projects for one test, all in the namespace of the test."""

    def write(source: str, *, broker_url: str | None = None, settings: dict[str, Any] | None = None) -> Project:
        if broker_url is None:
            broker_url = request.getfixturevalue("valkey").url
        folder = tmp_path / f"project-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return Project(folder, source, broker_url=broker_url, namespace=namespace, settings=settings)

    return write


@pytest.fixture
def run_process(request: pytest.FixtureRequest) -> Iterator[Callable[[CeleryProcess], None]]:
    """Start any process of a project, show its output if the test fails, and end the process with the test."""
    running = request.node.stash.setdefault(RUNNING, [])
    with ExitStack() as cleanup:

        def run(process: CeleryProcess) -> None:
            running.append(process)
            cleanup.callback(process.close)
            process.start()

        yield run


@pytest.fixture
def new_worker(run_process: Callable[[CeleryProcess], None]) -> NewWorker:
    """Start workers for one test; the options are those of :class:`tests.support.workers.Worker`."""

    def start(project: Project, name: str = "w1", *, wait: bool = True, **options: Any) -> Worker:
        worker = Worker(project, name, **options)
        run_process(worker)
        if wait:
            worker.wait_ready()
        return worker

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of the workers to the report of a failed test."""
    report = yield
    if report.failed:
        for process in item.stash.get(RUNNING, []):
            report.sections.append((f"output of {process.name}", process.report))
    return report
