"""Recovery scanners of every form, correct and wrong, in one monitor."""

from collections.abc import Callable

import pytest

from celery_daemons.wire.arguments import encode_arguments
from tests.conftest import NewProject, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE, Project
from tests.support.waiting import wait_until

LAUNCHERS = """
def rest(name):
    @daemons.launcher(name)
    async def run(ctx, number=0):
        await asyncio.sleep(3600)

    return run
"""

SHAPES = (
    PRELUDE
    + LAUNCHERS
    + """
function, generator, pages, asynchronous, coroutine, foreign = map(
    rest, ("function", "generator", "pages", "asynchronous", "coroutine", "foreign")
)

@function.recovery_scanner
def returns_a_list():
    return [function.spec("function.1"), function.spec("function.2", number=2)]

@generator.recovery_scanner
def yields():
    yield generator.spec("generator.1")
    yield function.spec("generator.of.another.launcher")

@pages.recovery_scanner
def yields_pages():
    yield [pages.spec("pages.1"), pages.spec("pages.2")]
    yield []
    yield (pages.spec("pages.3"),)

@asynchronous.recovery_scanner
async def yields_later():
    await asyncio.sleep(0.01)
    yield asynchronous.spec("asynchronous.1")
    yield [asynchronous.spec("asynchronous.2")]

@coroutine.recovery_scanner
async def returns_later():
    return [coroutine.spec("coroutine.1")]
"""
)
SHAPED = [
    *("function.1", "function.2", "generator.1", "generator.of.another.launcher", "pages.1", "pages.2", "pages.3"),
    *("asynchronous.1", "asynchronous.2", "coroutine.1"),
]

BROKEN = (
    PRELUDE
    + LAUNCHERS
    + """
good, raises, hangs, rubbish, nothing, stops, taken, unserialisable = map(
    rest, ("good", "raises", "hangs", "rubbish", "nothing", "stops", "taken", "unserialisable")
)

@good.recovery_scanner
def fine():
    yield good.spec("good.1")

@raises.recovery_scanner
def breaks():
    yield raises.spec("raises.1")
    raise RuntimeError("the database is gone")

@hangs.recovery_scanner
def blocks():
    yield hangs.spec("hangs.1")
    time.sleep(3600)

@rubbish.recovery_scanner
def talks():
    yield 42
    yield rubbish.spec("rubbish.1")
    yield {"name": "rubbish.2"}

@nothing.recovery_scanner
def forgets():
    nothing.spec("nothing.1")

@stops.recovery_scanner
def exits():
    raise SystemExit(3)

@taken.recovery_scanner
def takes():
    yield taken.spec("good.1")

@unserialisable.recovery_scanner
def opens():
    yield unserialisable.spec("unserialisable.1", number=object())
    yield unserialisable.spec("unserialisable.2")


@daemons.launcher
async def twice(ctx, number):
    await ctx.stopping.wait()


@twice.recovery_scanner
def both():
    for number in (1, 1, 2):
        yield twice.spec("twice.1", number=number)
"""
)


def test_recovery_scanners_of_every_form_are_read(
    new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    # Given / When
    project = new_project(SHAPES, settings=QUICK)
    client = client_of(project)
    new_worker(project, "w1", concurrency=1, wait=False)

    # Then
    client.wait_running_all(SHAPED, because="the scanners list them")
    assert {launcher: scan.listed for launcher, scan in client.status().scanners.items()} == {
        "function": 2,
        "generator": 2,
        "pages": 3,
        "asynchronous": 2,
        "coroutine": 1,
    }


def test_a_scanner_that_fails_is_reported_with_its_launcher_and_stops_no_other(
    new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    """Attacks invariant 7: a scanner that raises, hangs or yields invalid items must affect only its own launcher."""
    # Given
    project = new_project(BROKEN, settings={**QUICK, "scan_timeout": 1.5})
    client = client_of(project)
    # Scanners run at the same time: without this, the first one would have the name.
    client.want("good.1", "good", encode_arguments("good.1", (), {}))
    worker = new_worker(project, "w1", concurrency=1, wait=False)

    # When every scanner has been reported
    wait_until(lambda: len(client.status().scanners) == 9, within=SOON, because="the slowest ran into its time limit")

    # Then what could be read runs: a scan that breaks off has listed what came before
    client.wait_running_all(["good.1", "raises.1", "rubbish.1", "unserialisable.2"], because="they were listed")
    errors = {launcher: scan.error for launcher, scan in client.status().scanners.items()}
    expected = {
        "raises": "RuntimeError: the database is gone",
        "hangs": "did not finish within 1.5 s",
        "rubbish": "yielded 42, which is not a spec",
        "nothing": "returned None",
        "stops": "SystemExit: 3",
        "taken": "lists good.1 for launcher taken, but the name is taken by another launcher",
        "unserialisable": "daemon unserialisable.1: its arguments do not serialise",
        "twice": "lists twice.1 twice, with different arguments; the first one counts",
    }
    assert errors.pop("good") is None
    for launcher, error in expected.items():
        assert error in (errors[launcher] or ""), launcher
        assert f"launcher {launcher}: recovery scanner" in worker.output
    causes = [entry.cause for entry in client.events(last=1000) if entry.event == "scan-failed"]
    assert len(causes) == len(expected)

    # And the same monitor continues to lead, and scans again
    leader = client.leader()
    before = client.status().scanners["good"].at_ms
    client.rescan()
    wait_until(lambda: client.status().scanners["good"].at_ms > before, within=SOON, because="it is scanned again")
    assert client.leader() == leader


def test_a_changed_argument_replaces_the_daemon_and_pruning_waits_for_two_scans(
    new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    # Given a list in a file
    source = (
        PRELUDE
        + """
@daemons.launcher("row", prune=True)
async def row(ctx, number):
    await asyncio.sleep(3600)

@row.recovery_scanner
def rows():
    for line in (Path(FOLDER) / "rows").read_text().split():
        name, number = line.split("=")
        yield row.spec(name, number=int(number))
"""
    )
    project = new_project(source, settings=QUICK)
    client = client_of(project)
    rows = project.folder / "rows"
    rows.write_text("a=1 b=1 c=1")
    new_worker(project, "w1", concurrency=1, wait=False)
    before = client.wait_running_all(["a", "b", "c"], because="they are listed")

    def scan() -> None:
        last = client.status().scanners["row"].at_ms
        client.rescan("row")
        wait_until(lambda: client.status().scanners["row"].at_ms > last, within=SOON, because="the scanner ran")

    # When one changes and one is no longer listed
    rows.write_text("a=1 b=2")
    scan()

    # Then the changed daemon is restarted, and the missing one still runs
    wait_until(
        lambda: (now := client.running("a", "b", "c")) and now["b"].token > before["b"].token,
        within=SOON,
        because="b has another argument",
    )
    assert client.locate("a") == before["a"]
    assert client.locate("c") == before["c"]

    # When it is missing again
    scan()

    # Then it is forgotten
    wait_until(lambda: client.record("c") is None, within=SOON, because="two scans in a row did not list it")
    assert client.locate("a") == before["a"]


# Alone: a machine that is busy elsewhere may lose the short lease of these tests, which restarts daemons too.
@pytest.mark.timing
def test_daemons_with_large_arguments_run_and_kill_no_host(
    new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    """Eighty of them in one message were more than its reader takes: all died, and a neighbour with them."""
    # Given a scanner that lists a small daemon, and eighty with arguments of 1 MB each
    source = (
        PRELUDE
        + """
@daemons.launcher("feed")
async def feed(ctx, document):
    await ctx.stopping.wait()

@feed.recovery_scanner
def all_of_them():
    yield feed.spec("feed.small", "x")
    for number in range(80):
        yield feed.spec(f"feed.{number}", "x" * 1_000_000)
"""
    )
    project = new_project(source, settings=QUICK)
    client = client_of(project)
    worker = new_worker(project, "w1", concurrency=1, wait=False)

    # Then all run, none was started twice, and no host died
    running = client.wait_running_all(
        ["feed.small", *(f"feed.{number}" for number in range(80))], because="they are listed", within=2 * SOON
    )
    assert len(running) == 81
    assert "died" not in worker.output
    assert {record.restarts for record in client.list()} == {0}

    # When one above the limit is spawned, then it is refused by name and size
    told = project.python(
        "import proj\n"
        "try:\n"
        "    proj.daemons.spawn('huge', 'feed', args=['x' * 80_000_000])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    assert told.startswith("ConfigurationError daemon huge: its arguments take 80000")

    # When one is spawned with arguments that the launcher does not take, then the command says which
    refused = project.celery("daemons", "spawn", "feed", "wrong", "--kwargs", '{"file": "x"}')
    assert refused.returncode == 1
    assert "daemon wrong: launcher feed does not take these arguments: missing a required" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
