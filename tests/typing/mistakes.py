"""A user's program with mistakes. A type checker has to report each line marked as wrong, and no other line."""

from celery import Celery  # type: ignore[import-untyped]

from celery_daemons import AddressBook, BlockingDaemonContext, DaemonContext, Daemons, DaemonSpec, Launcher
from celery_daemons.contrib.django import spawn_on_commit

app = Celery("proj", broker="redis://localhost:6379/0")
daemons = Daemons(app)


@daemons.launcher
async def tail(ctx: DaemonContext, path: str, *, depth: int = 1) -> None:
    """A launcher without parentheses."""


@daemons.launcher("poll", stop_grace=1.0)
def poll(ctx: BlockingDaemonContext, every: float) -> None:
    """A launcher with parentheses."""


class Watch:
    """A class with ``run``."""

    def run(self, ctx: BlockingDaemonContext, *folders: str) -> None:
        """Run until the daemon is asked to stop."""


class Idle:
    """A class without ``run``."""


watch = daemons.register_launcher("watch", Launcher(Watch))


def specs() -> None:
    """Make specs with wrong arguments."""
    tail.spec("tail.1")  # wrong
    tail.spec(1, "/var/log/syslog")  # wrong
    tail.spec("tail.1", 5)  # wrong
    tail.spec("tail.1", "/var/log/syslog", 2)  # wrong
    tail.spec("tail.1", pth="/var/log/syslog")  # wrong
    tail.spec("tail.1", "/var/log/syslog", depth="deep")  # wrong
    tail.spec("tail.1", "/var/log/syslog", depth=2)
    poll.spec("poll.1", seconds=1)  # wrong
    poll.spec("poll.1", every=1)
    watch.spec("watch.1", "/etc", 5)  # wrong
    watch.spec("watch.1", "/etc", "/var")


def tasks() -> None:
    """Send the tasks of launchers with wrong arguments."""
    tail.delay("tail.1", pth="/var/log/syslog")  # wrong
    tail.spawn("tail.1")  # wrong
    spawn_on_commit(tail, "tail.1", pth="/var/log/syslog")  # wrong
    tail.s("tail.1", pth="/var/log/syslog")  # wrong
    tail.s(path="/var/log/syslog")
    tail.si(path="/var/log/syslog")  # wrong
    tail.apply_async("tail.1", kwargs=["/var/log/syslog"])  # wrong


def settings() -> None:
    """Give wrong settings."""
    Daemons(app, lease_tl=5.0)  # wrong
    Daemons(app, lease_ttl="5")  # wrong
    Daemons(app, rebalance="sometimes")  # wrong
    Daemons(app, rebalance="manual", node_labels=["gpu"])


def wrong_launchers() -> None:
    """Register what is no launcher, and give wrong options."""

    @daemons.launcher(isolation="fibre")  # wrong
    def fibre(ctx: BlockingDaemonContext) -> None: ...

    @daemons.launcher(stop_grce=5)  # wrong
    def misspelt(ctx: BlockingDaemonContext) -> None: ...

    @daemons.launcher  # wrong
    def context_of_a_coroutine(ctx: DaemonContext) -> None: ...

    @daemons.launcher  # wrong
    async def without_context() -> None: ...

    @poll.recovery_scanner  # wrong
    def of_names() -> list[str]: ...  # type: ignore[empty-body]

    @watch.recovery_scanner
    def of_specs() -> list[DaemonSpec]:
        return [watch.spec("watch.1", "/etc")]

    daemons.launcher(Idle)  # wrong
    daemons.launcher("watch", stop_grce=5)(Watch)  # wrong
    Launcher(Watch, prune="yes")  # wrong
    daemons.spawn("watch.1", Watch)  # wrong
    daemons.spawn("watch.1", watch, args=["/etc"])


def calls() -> None:
    """Call with wrong arguments, and use results wrongly."""
    place: str = daemons.locate("tail.web-1")  # wrong
    daemons.locate("tail.web-1").node  # wrong
    daemons.drain(5)  # wrong
    daemons.list(nod="celery@web-1")  # wrong
    daemons.launchers.get("tail").name  # wrong
    AddressBook.connect("redis://localhost", namespce="typing")  # wrong
    AddressBook.connect(6379)  # wrong
    with daemons.address_book() as book:
        book.wait_for("tail.1", timeout="5")  # wrong
        lag: str = book.lag  # wrong
    print(place, lag)


async def calls_from_a_coroutine() -> None:
    """Make the same mistakes with coroutines."""
    place: str = await daemons.aio.locate("tail.web-1")  # wrong
    await daemons.aio.drain(5)  # wrong
    await daemons.aio.spawn("tail.1", tail, wait="5")  # wrong
    for record in daemons.aio.list():  # wrong
        print(record)
    async for entry in daemons.aio.follow_events(after=5):  # wrong
        print(entry)
    daemons.aio.locate("tail.web-1").node  # wrong
    daemons.aio.locat("tail.web-1")  # wrong
    async with daemons.address_book() as book:
        found: str = await book.wait_for_async("tail.1", timeout=5)  # wrong
    print(place, found)
