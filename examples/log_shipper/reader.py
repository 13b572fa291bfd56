"""Receive the shipped lines of the writer's files and check them: ``python -m examples.log_shipper.reader``."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob

from redis import Redis

from examples.log_shipper.proj import LOGS_GLOB, app, daemons
from examples.log_shipper.sink import stream_key

#: Seconds between two reports, and the most lines of a file that are read at once.
REPORT_EVERY = 2.0
BATCH = 1000


@dataclass(slots=True)
class Tally:
    """Compares the numbers of a file's lines with a sequence that begins with the first number received."""

    received: int = 0
    missing: int = 0
    doubled: int = 0
    last: int | None = None

    def add(self, number: int) -> None:
        """Count one line."""
        self.received += 1
        if self.last is None or number > self.last:
            self.missing += 0 if self.last is None else number - self.last - 1
            self.last = number
        else:
            self.doubled += 1


class Reader:
    """Reads the stream of each file to its end, and trims what has been read."""

    def __init__(self, client: Redis) -> None:
        self.tallies: dict[str, Tally] = {}
        self._client = client
        self._read: dict[str, bytes] = {}

    def receive(self, paths: Iterable[str]) -> None:
        """Count the new lines of these files."""
        for path in paths:
            tally = self.tallies.setdefault(path, Tally())
            while entries := self._client.xrange(stream_key(path), min=self._after(path), count=BATCH):
                for identifier, fields in entries:
                    tally.add(int(fields[b"line"].split()[0]))
                    self._read[path] = identifier
                self._client.xtrim(stream_key(path), minid=self._read[path], approximate=False)

    def _after(self, path: str) -> bytes:
        return b"(" + self._read[path] if path in self._read else b"-"


def report(tallies: dict[str, Tally], nodes: dict[str, str]) -> Iterator[str]:
    """Yield one line per file: how many lines arrived, what is wrong with them, and which node ships the file."""
    for path, tally in sorted(tallies.items()):
        wrong = (
            f"{tally.missing} MISSING, {tally.doubled} DOUBLED" if tally.missing or tally.doubled else "all in order"
        )
        yield f"{path}: {tally.received} lines, {wrong}, shipped by {nodes.get(path, 'no node now')}"


def main() -> None:
    """Report until the process is ended."""
    reader = Reader(Redis.from_url(app.conf.broker_url))
    while True:
        paths = sorted(glob(LOGS_GLOB))  # noqa: PTH207 - an absolute pattern
        reader.receive(paths)
        found = daemons.locate_many([f"ship:{path}" for path in paths])
        nodes = {path: found[f"ship:{path}"].node for path in paths if f"ship:{path}" in found}
        for line in report(reader.tallies, nodes):
            print(line, flush=True)
        time.sleep(REPORT_EVERY)


if __name__ == "__main__":
    main()
