"""What the measurements run on: a Valkey of their own, a project, workers, a client."""

import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from celery_daemons.client.cluster import Cluster
from tests.support.projects import PRELUDE, Project
from tests.support.servers import Server
from tests.support.workers import Worker

T = TypeVar("T")

SOURCE = (
    PRELUDE
    + """
import resource

@daemons.launcher("rest")
async def rest(ctx, number=0):
    await ctx.stopping.wait()

@daemons.launcher("alone")
def alone(ctx):
    ctx.stopping.wait()

@app.task
def sleep(seconds):
    time.sleep(seconds)

@rest.recovery_scanner
def listed():
    text = (Path(FOLDER) / "count").read_text()
    for number in range(int(text)):
        yield rest.spec(f"rest.{number}", number=number)
"""
)


class Stage:
    """One project on one server."""

    def __init__(self, server: Server, folder: Path, stack: ExitStack, settings: dict[str, Any]) -> None:
        self.server = server
        self._stack = stack
        self.project = Project(
            folder, SOURCE, broker_url=server.url, namespace=f"bench-{uuid.uuid4().hex[:6]}", settings=settings
        )
        self.list(0)
        self.cluster = Cluster(server.url, self.project.namespace, vnodes=40)
        stack.callback(self.cluster.close)

    def list(self, count: int) -> None:
        """Let the recovery scanner list so many daemons."""
        (self.project.folder / "count").write_text(str(count))

    def worker(self, name: str, **options: Any) -> Worker:
        """Start a worker; returns before it is ready."""
        options.setdefault("concurrency", 1)
        return self._stack.enter_context(Worker(self.project, name, **options))

    def count_running(self) -> int:
        """How many daemons run by the book, of those that are listed."""
        return self.cluster.status().daemons["running"]

    def wait(self, condition: Callable[[], T], within: float = 60.0, every: float = 0.01) -> T:
        """Wait for a condition; the stage is broken if it does not come."""
        deadline = time.monotonic() + within
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError("the measurement did not come to its end")
            time.sleep(every)
        return value


@contextmanager
def stage(**settings: Any) -> Iterator[Stage]:
    """Set a stage, and clear it."""
    folder = Path(tempfile.mkdtemp(prefix="daemons-bench-"))
    try:
        with ExitStack() as stack:
            yield Stage(stack.enter_context(Server("valkey")), folder, stack, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def times(action: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each of so many calls."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of all lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
