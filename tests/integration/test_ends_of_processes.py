"""How processes of daemons end and are asked to stop, with Sentry and uvloop."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server

pytestmark = pytest.mark.heavy

#: True in the worker's processes; the tests import the module too, and must not be patched by it.
IN_WORKER = 'IN_WORKER = "CELERY_DAEMONS_TEST" in os.environ\n'
HEAD = EVENT_LOG + IN_WORKER

AT_THE_END = """
import atexit, logging, logging.handlers, tempfile
import sentry_sdk

if IN_WORKER:
    sentry_sdk.init(dsn="http://key@127.0.0.1:SINK/1")
    atexit.register(note, "app", "atexit of the import")

def is_fourth_run(name):
    with open(f"{FOLDER}/{name}.runs", "a+") as runs:
        runs.write("x")
        runs.seek(0)
        return len(runs.read()) > 3

@daemons.launcher(backoff=0.2, backoff_max=0.2, max_restarts=1000)
def isolated(ctx):
    if is_fourth_run("isolated"):
        note(ctx.name, "waits")
        return ctx.stopping.wait()
    note(ctx.name, "runs")
    raise ValueError("isolated broke")

@daemons.launcher(backoff=0.2, backoff_max=0.2, max_restarts=1000)
async def shared(ctx):
    if is_fourth_run("shared"):
        note(ctx.name, "waits")
        return await ctx.stopping.wait()
    note(ctx.name, "runs")
    raise ValueError("shared broke")

@daemons.launcher(restart="temporary", stop_grace=20)
def last_acts(ctx):
    atexit.register(note, ctx.name, "atexit")
    atexit.register(sys_exit)
    kept = tempfile.TemporaryDirectory(prefix="kept-")
    target = logging.FileHandler(FOLDER + "/buffered.log")
    logging.getLogger("buffered").addHandler(logging.handlers.MemoryHandler(1000, logging.CRITICAL, target))
    logging.getLogger("buffered").warning("kept in memory")
    threading.Thread(target=work_on, args=(ctx,)).start()
    globals()["kept"] = kept
    note(ctx.name, "folder", path=kept.name)

def sys_exit():
    raise SystemExit(5)

def work_on(ctx):
    time.sleep(0.5)
    note(ctx.name, "thread is done")

@daemons.launcher(restart="temporary", stop_grace=20)
def never_ends(ctx):
    threading.Thread(target=threading.Event().wait).start()
    note(ctx.name, "returns", at=time.time())
"""

STOPS = """
import uvloop
if IN_WORKER:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

@daemons.launcher(isolation="process", stop_grace=20)
async def feed(ctx):
    note(ctx.name, "runs", loop=type(asyncio.get_running_loop()).__module__)
    try:
        while True:
            await ctx.sleep(1)
    finally:
        await asyncio.sleep(0.05)
        note(ctx.name, "saved")

@daemons.launcher(stop_grace=20)
def plain(ctx):
    async def main():
        note(ctx.name, "runs", loop=type(asyncio.get_running_loop()).__module__)
        while not ctx.stopping.is_set():
            await asyncio.sleep(0.05)
    asyncio.run(main())
    note(ctx.name, "saved")

@daemons.launcher(restart="transient", stop_grace=20)
def handles(ctx):
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        note(ctx.name, "runs", loop=type(asyncio.get_running_loop()).__module__)
        await stop.wait()
    asyncio.run(main())
    note(ctx.name, "saved")
"""


class EventSink:
    """Stands in for Sentry: counts the exceptions that arrive by their text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.note(body)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def note(self, body: bytes) -> None:
        """Read an envelope: lines of JSON, one of which holds the event."""
        for line in body.splitlines():
            try:
                self.texts.append(json.loads(line)["exception"]["values"][-1]["value"])
            except (ValueError, KeyError, TypeError):
                continue


@pytest.fixture
def sink() -> Iterator[EventSink]:
    found = EventSink()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_every_error_of_an_isolated_daemon_reaches_sentry(tmp_path: Path, valkey: Server, sink: EventSink) -> None:
    # Given
    source = HEAD + AT_THE_END.replace("SINK", str(sink.server.server_address[1]))
    with IntegrationCluster(tmp_path, valkey, source) as cluster:
        cluster.worker()

        # When
        for name in ("isolated", "shared"):
            cluster.daemons.spawn(name, name)
            # Not stopped while it fails: a failure that meets the stop is a warning, and Sentry takes errors.
            cluster.wait_event(name, "waits")
        cluster.workers["w1"].stop()

        # Then as many errors have arrived as there were
        for name in ("isolated", "shared"):
            assert sink.texts.count(f"{name} broke") == len(cluster.events(name, "runs")) == 3
        # Then functions that the import registered are not called in hosts
        hosts = {entry["pid"] for name in ("isolated", "shared") for entry in cluster.events(name)}
        assert hosts.isdisjoint(entry["pid"] for entry in cluster.events("app"))


def test_an_isolated_daemon_ends_as_a_script_does_within_a_limit(
    tmp_path: Path, valkey: Server, sink: EventSink
) -> None:
    # Given
    source = HEAD + AT_THE_END.replace("SINK", str(sink.server.server_address[1]))
    with IntegrationCluster(tmp_path, valkey, source) as cluster:
        cluster.worker()

        # When
        cluster.daemons.spawn("last-acts", "last_acts")
        cluster.wait_status("last-acts", "stopped")

        # Then its threads were awaited, its atexit functions called, its log handlers flushed
        assert [entry["event"] for entry in cluster.events("last-acts")] == ["folder", "thread is done", "atexit"]
        assert (tmp_path / "buffered.log").read_text() == "kept in memory\n"
        assert not Path(cluster.events("last-acts", "folder")[0]["path"]).exists()

        # When a thread never ends
        cluster.daemons.spawn("never-ends", "never_ends")

        # Then the wait for it ends
        cluster.wait_status("never-ends", "stopped")
        assert 1.5 < time.time() - cluster.events("never-ends", "returns")[0]["at"] < 10


@pytest.mark.parametrize("name", ["feed", "plain", "handles"])
def test_an_isolated_daemon_on_uvloop_is_asked_to_stop_and_stays_wanted(
    tmp_path: Path, valkey: Server, name: str
) -> None:
    """Attacks invariant 2: a daemon with a handler of its own for SIGTERM ended, and counted as finished."""
    # Given
    with IntegrationCluster(tmp_path, valkey, HEAD + STOPS) as cluster:
        cluster.worker()
        cluster.spawn(name, name)
        assert cluster.wait_event(name, "runs")["loop"].startswith("uvloop")

        # When
        cluster.daemons.restart(name, wait=SOON)

        # Then
        cluster.wait_event(name, "saved")
        cluster.wait_event(name, "runs", times=2)

        # When its node is drained
        cluster.workers["w1"].stop()

        # Then
        cluster.wait_event(name, "saved", times=2)
        assert cluster.record(name).desired == "running"
        assert "did not stop within its grace" not in cluster.workers["w1"].output
