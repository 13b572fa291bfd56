"""The log shipper: its demo from start to exit status, its audit, and the parts that make it exactly once."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from celery_daemons import Fenced
from celery_daemons.domain.options import LauncherOptions
from examples.log_shipper.demo.audit import Shipped, Verdict, audit
from examples.log_shipper.follow import CHUNK, Position, read_lines
from examples.log_shipper.sink import Sink, stream_key
from tests.support.processes import alive
from tests.support.projects import ROOT
from tests.support.servers import Server

T = TypeVar("T")

#: Seconds for the demo, which takes half a minute; every wait in it has an end of its own.
DEMO_WITHIN = 110.0
STOP_GRACE = LauncherOptions().stop_grace

WRITTEN = [b"%d line" % number for number in range(10)]
SHIPPED = [Shipped(line, 1 + number // 5) for number, line in enumerate(WRITTEN)]


# The demo


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The demo's folder for temporary files. Its path is short: sockets are made in it."""
    folder = Path(tempfile.mkdtemp(prefix="cd-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start_demo(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.log_shipper.demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(demo: subprocess.Popen[str]) -> None:
    """Let it end what it has started, whatever the test came to."""
    if demo.poll() is None:
        demo.terminate()
    demo.communicate(timeout=30)


def left_in(folder: Path) -> list[str]:
    """What a demo has left behind: processes that work in its folder, and files."""
    left = [str(path) for path in folder.iterdir()]
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder.resolve()) and alive(process):
                left.append(str(process))
        except (psutil.Error, OSError):
            continue
    return left


@pytest.mark.heavy
def test_the_demo_ships_every_line_exactly_once_and_leaves_nothing_behind(temporary: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} says {number}\n" for number in range(60)))
    demo = start_demo(temporary, "--logs", str(tmp_path / "*.txt"))

    try:
        told, _ = demo.communicate(timeout=DEMO_WITHIN)
    finally:
        end(demo)

    assert demo.returncode == 0, told
    assert re.search(r"^\d+ lines written, each shipped exactly once and in order\.$", told, re.MULTILINE), told
    for event in ("w1 killed", "w2 paused", "w2 continued", "w3 drained", "rotated", "no process is left behind"):
        assert event in told, told
    # Below the grace that a daemon has to stop: every one of them stopped when it was asked to.
    moves = [float(seconds) for seconds in re.findall(r"run elsewhere after ([\d.]+) s", told)]
    assert len(moves) == 3, told
    assert max(moves) < STOP_GRACE, told
    assert left_in(temporary) == []


@pytest.mark.heavy
def test_an_interrupted_demo_leaves_nothing_behind(temporary: Path) -> None:
    demo = start_demo(temporary)
    assert demo.stdout is not None
    try:
        told = next((line for line in demo.stdout if "w3@demo" in line), None)
        assert told, "it ended before its workers were nodes"

        demo.terminate()
        demo.wait(timeout=30)
    finally:
        end(demo)

    assert demo.returncode == 130
    assert left_in(temporary) == []


def test_a_demo_without_log_files_reports_an_error(temporary: Path) -> None:
    demo = start_demo(temporary, "--logs", str(temporary / "nothing"))
    try:
        told, _ = demo.communicate(timeout=30)
    finally:
        end(demo)

    assert demo.returncode == 2
    assert "no readable text files match" in told


# Its audit


def wrong(verdict: Verdict) -> set[str]:
    """What an audit complains of."""
    kinds = ("lost", "doubled", "foreign", "disordered", "falls")
    return {kind for kind in kinds if getattr(verdict, kind)}


def test_the_audit_accepts_lines_that_were_shipped_exactly_once() -> None:
    verdict = audit("a.log", WRITTEN, SHIPPED)

    assert verdict.clean
    assert verdict.complaints == []
    assert (verdict.written, verdict.shipped, verdict.tokens) == (10, 10, 2)


@pytest.mark.parametrize(
    ("shipped", "complaint"),
    [
        ([], {"lost"}),
        (SHIPPED[:-1], {"lost"}),
        ([*SHIPPED[:3], *SHIPPED[4:]], {"lost"}),
        ([*SHIPPED[:4], SHIPPED[3], *SHIPPED[4:]], {"doubled"}),
        ([*SHIPPED, SHIPPED[9]], {"doubled"}),
        ([*SHIPPED, Shipped(b"11 line", 2)], {"foreign"}),
        ([*SHIPPED[:3], Shipped(b"3 li", 1), Shipped(b"ne", 1), *SHIPPED[4:]], {"lost", "foreign"}),
        ([SHIPPED[1], SHIPPED[0], *SHIPPED[2:]], {"disordered"}),
        ([*SHIPPED[:7], Shipped(WRITTEN[7], 1), *SHIPPED[8:]], {"falls"}),
    ],
)
def test_the_audit_reports_each_kind_of_error(shipped: list[Shipped], complaint: set[str]) -> None:
    verdict = audit("a.log", WRITTEN, shipped)

    assert not verdict.clean
    assert wrong(verdict) == complaint
    assert all(sentence.startswith("a.log: ") for sentence in verdict.complaints)


# Following a file


class Follower:
    """Reads on from where it was, as the daemon does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = Position()

    def read(self) -> list[bytes]:
        """All there is."""
        found: list[bytes] = []
        while True:
            lines, after = read_lines(str(self.path), self.position)
            if after == self.position:
                return found
            found += lines
            self.position = Position.parse(str(after))


@pytest.fixture
def follower(tmp_path: Path) -> Follower:
    return Follower(tmp_path / "app.log")


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_a_missing_file_has_no_lines(follower: Follower) -> None:
    assert follower.read() == []

    append(follower.path, b"one\n")

    assert follower.read() == [b"one"]


def test_an_incomplete_line_is_not_shipped_until_it_ends(follower: Follower) -> None:
    append(follower.path, b"one\ntw")
    assert follower.read() == [b"one"]

    append(follower.path, b"o\n\nthree\r\n")

    assert follower.read() == [b"two", b"", b"three\r"]


def test_a_truncated_file_is_read_from_its_start(follower: Follower) -> None:
    append(follower.path, b"one\ntwo\n")
    follower.read()

    follower.path.write_bytes(b"new\n")

    assert follower.read() == [b"new"]


def test_the_rest_of_a_rotated_file_is_read_before_the_new_file(follower: Follower) -> None:
    append(follower.path, b"one\n")
    follower.read()
    append(follower.path, b"two\nend")
    rotated = follower.path.rename(follower.path.with_name("app.log.1"))
    assert follower.read() == [b"two"]
    append(rotated, b"ing\n")
    assert follower.read() == [b"ending"]

    append(rotated, b"last, without its end")
    append(follower.path, b"new\n")

    assert follower.read() == [b"last, without its end", b"new"]


def test_a_line_longer_than_a_chunk_is_shipped_in_pieces(follower: Follower) -> None:
    append(follower.path, b"x" * (CHUNK + 10) + b"\nshort\n")

    assert follower.read() == [b"x" * CHUNK, b"x" * 10, b"short"]


# The sink


@pytest.fixture
def path(namespace: str) -> str:
    """A path that no other test ships: the server is shared."""
    return f"/logs/{namespace}.log"


def ship(url: str, work: Callable[[Sink], Awaitable[T]]) -> T:
    """Run something with a sink."""

    async def run() -> T:
        return await work(Sink(url))

    return asyncio.run(run())


def lines_of(server: Server, path: str) -> list[str]:
    with server.client() as client:
        return [fields["line"] for _, fields in client.xrange(stream_key(path))]


def test_a_step_that_is_sent_twice_is_applied_once(valkey: Server, path: str) -> None:
    start, middle, last = Position(), Position(7, 4), Position(7, 8)

    async def work(sink: Sink) -> list[Position]:
        assert await sink.take_over(path, 5) == start
        first = await sink.append(path, 5, [b"one"], before=start, after=middle)
        again = await sink.append(path, 5, [b"one"], before=start, after=middle)
        return [first, again, await sink.append(path, 5, [b"two"], before=again, after=last)]

    assert ship(valkey.url, work) == [middle, middle, last]
    assert lines_of(valkey, path) == ["one", "two"]


def test_an_older_token_ships_nothing_after_a_newer_token_has_shipped(valkey: Server, path: str) -> None:
    start, middle, last = Position(), Position(7, 4), Position(7, 8)

    async def work(sink: Sink) -> None:
        await sink.take_over(path, 5)
        await sink.append(path, 5, [b"one"], before=start, after=middle)
        assert await sink.take_over(path, 6) == middle
        with pytest.raises(Fenced):
            await sink.append(path, 5, [b"two, by the dead"], before=middle, after=last)
        with pytest.raises(Fenced):
            await sink.take_over(path, 5)
        await sink.append(path, 6, [b"two"], before=middle, after=last)

    ship(valkey.url, work)

    assert lines_of(valkey, path) == ["one", "two"]
