"""A user's program that has to pass a strict type checker. It is never run."""

from collections.abc import AsyncIterator, Iterator

from celery import Celery  # type: ignore[import-untyped]

from celery_daemons import (
    Address,
    AddressBook,
    BlockingDaemonContext,
    DaemonContext,
    DaemonRecord,
    Daemons,
    DaemonSpec,
    Launcher,
    Move,
    Node,
)
from celery_daemons.contrib.django import spawn_on_commit

app = Celery("proj", broker="redis://localhost:6379/0")
daemons = Daemons(app, namespace="typing", lease_ttl=5.0)


@daemons.launcher("tail")
async def tail(ctx: DaemonContext, path: str) -> None:
    """A coroutine."""
    while not ctx.stopping.is_set():
        ctx.beat()
        ctx.log.info("%s %s %s %s %s", ctx.name, ctx.launcher, ctx.node, ctx.token, path)


@daemons.launcher("poll", isolation="thread", restart="transient", max_restarts=3, stop_grace=1.0, labels=["gpu"])
def poll(ctx: BlockingDaemonContext, every: float) -> None:
    """A function."""
    ctx.sleep(every)


@daemons.launcher
async def bare(ctx: DaemonContext, path: str, *, depth: int = 1) -> None:
    """A coroutine, without parentheses."""
    await ctx.sleep(1)


@daemons.launcher
def bare_function(ctx: BlockingDaemonContext, every: float = 1.0) -> int:
    """A function, without parentheses, whose result does not count."""
    ctx.sleep(every)
    return 0


@daemons.launcher()
class Watch:
    """A class with ``run``."""

    def run(self, ctx: BlockingDaemonContext, *folders: str) -> None:
        """Run until the daemon is asked to stop."""


@daemons.launcher
class Follow:
    """A class with a coroutine ``run``, without parentheses."""

    async def run(self, ctx: DaemonContext, folder: str) -> None:
        """Run until the daemon is asked to stop."""


class Record:
    """A class whose launcher has a name of its own, so that its specs are checked by mypy too."""

    def run(self, context: BlockingDaemonContext, folder: str, /, *, every: float = 1.0) -> None:
        """Run until the daemon is asked to stop."""


record = daemons.register_launcher("record", Launcher(Record, stop_grace=3, labels=("gpu", "arm")))
record_often = daemons.launcher("record-often", prune=True)(Record)


@bare.recovery_scanner
async def every_bare() -> list[DaemonSpec]:
    """A coroutine that returns specs."""
    return [bare.spec("bare.1", "/var/log", depth=2), bare.spec("bare.2", path="/var/log")]


@record.recovery_scanner
def every_record() -> tuple[DaemonSpec, ...]:
    """A function that returns specs."""
    return (record.spec("record.1", "/var", every=2), record_often.spec("record.2", "/var"))


@tail.recovery_scanner
def every_log() -> Iterator[DaemonSpec]:
    """A generator of specs."""
    yield tail.spec("tail.web-1", path="/var/log/web-1.log")


@poll.recovery_scanner
async def every_poll() -> AsyncIterator[list[DaemonSpec]]:
    """An asynchronous generator of pages of specs."""
    yield [poll.spec("poll.1", 2.5), poll.spec("poll.2", every=5)]


def calls() -> None:
    """Call every method and annotate the result with its documented type."""
    spawned: Address | None = daemons.spawn("tail.web-2", "tail", kwargs={"path": "x"}, wait=5, replace=True)
    place: Address | None = daemons.locate("tail.web-1")
    places: dict[str, Address] = daemons.locate_many(["tail.web-1", "tail.web-2"])
    nodes: list[Node] = daemons.nodes()
    records: Iterator[DaemonRecord] = daemons.list(launcher="tail", status="running")
    preferred: str | None = daemons.pick_node("tail.web-3")
    again: Address | None = daemons.spawn("bare.1", bare, args=["/var/log"])
    direct: Address | None = bare.spawn("bare.1", "/var/log", depth=2)
    spawn_on_commit(bare, "bare.1", "/var/log", depth=2)
    bare.delay("bare.1", path="/var/log").get(timeout=5)
    bare.s("bare.1", "/var/log")
    bare.s(path="/var/log")
    bare.si("bare.1", "/var/log", depth=2)
    bare.apply_async(("bare.1", "/var/log"), {"depth": 2}, countdown=5)
    registered: Launcher[...] | None = daemons.launchers.get("bare")
    others: Launcher[...] | str = daemons.launchers.get("other", "none")
    print(again, direct, registered, others, [entry.event for entry in daemons.follow_events(after="0-0")])
    daemons.stop("tail.web-1", wait=5)
    daemons.start("tail.web-1")
    daemons.restart("tail.web-1", wait=5)
    daemons.drain("celery@web-2", wait=30)
    daemons.uncordon("celery@web-2")
    daemons.rescan("tail")
    moved: Address | None = daemons.move("tail.web-1", to="celery@web-3", wait=5)
    moves: list[Move] = daemons.rebalance(dry_run=True)
    print(moved, [(move.name, move.source, move.target, move.why) for move in moves])
    if place is not None:
        name: str = place.name
        queue: str | None = place.queue
        token: int = place.token
        print(name, queue, token)
    print(spawned, places, nodes, list(records), preferred)


async def calls_from_a_coroutine() -> None:
    """Await the same calls."""
    place: Address | None = await daemons.aio.locate("tail.web-1")
    places: dict[str, Address] = await daemons.aio.locate_many(["tail.web-1"])
    nodes: list[Node] = await daemons.aio.nodes()
    records: list[DaemonRecord] = [record async for record in daemons.aio.list(launcher="tail")]
    spawned: Address | None = await daemons.aio.spawn("tail.web-2", tail, kwargs={"path": "x"}, wait=5)
    known: bool = await daemons.aio.forget("tail.web-2")
    moves: list[Move] = await daemons.aio.rebalance(dry_run=True)
    await daemons.aio.drain("celery@web-2", wait=30)
    await daemons.aio.stop("tail.web-1", wait=5)
    nodes_up: int = (await daemons.aio.status()).nodes["up"]
    async for entry in daemons.aio.follow_events():
        print(entry.id, entry.event)
    async with daemons.address_book() as book:
        found: Address = await book.wait_for_async("tail.web-1", timeout=5)
        print(book.locate("tail.web-1"), found)
    print(place, places, nodes, records, spawned, known, moves, nodes_up)
    await daemons.aio.close()


def replica() -> None:
    """Use the live replica of the address book with and without an app."""
    with daemons.address_book() as book:
        place: Address | None = book.locate("tail.web-1")
        lag: float = book.lag
        print(place, lag, book.process_list("celery@web-1"), book.nodes(), book.pick_node("tail.web-1"))
    with AddressBook.connect("redis://localhost:6379/0", namespace="typing") as book:
        print(book.wait_for("tail.web-1", timeout=5))
