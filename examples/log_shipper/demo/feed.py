"""Make log files grow: a thread appends lines as programs do that know of no reader."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from examples.log_shipper.demo.sources import Source

#: Seconds between two writes to a file, and the most lines in one.
_PAUSE: Final = 0.05
_MOST_LINES: Final = 8
#: How often a write breaks off in the middle of its last line, as a full buffer makes it.
_BROKEN: Final = 0.2


class Feed:
    """Write lines until stopped; ``written`` counts whole lines by file name."""

    def __init__(self, folder: Path, sources: Sequence[Source]) -> None:
        self.written = {source.name: 0 for source in sources}
        self.paths = {source.name: folder / source.name for source in sources}
        self.failure: OSError | None = None
        self._sources = sources
        self._begun: dict[str, bytes] = {}
        self._to_rotate: set[str] = set()
        self._rng = random.Random()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self) -> None:
        """Complete the last lines and stop writing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def rotate(self, name: str) -> None:
        """Request a rotation as by logrotate: the file is renamed, and the next line begins a new file."""
        self._to_rotate.add(name)

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PAUSE):
                for source in self._sources:
                    self._write(source, self._rng.randrange(_MOST_LINES + 1), broken=self._rng.random() < _BROKEN)
                while self._to_rotate:
                    self._rotate(self._to_rotate.pop())
            for source in self._sources:
                self._write(source, 1, broken=False)
        except OSError as error:
            self.failure = error

    def _rotate(self, name: str) -> None:
        # A program completes a line in the file in which it began it.
        self._write(next(source for source in self._sources if source.name == name), 1, broken=False)
        path = self.paths[name]
        path.rename(path.with_name(path.name + ".1"))

    def _write(self, source: Source, count: int, *, broken: bool) -> None:
        """Append ``count`` lines. If ``broken``, append half of the last one, and let the next call append the rest."""
        if not count:
            return
        first = self.written[source.name]
        lines = [source.line(number) + b"\n" for number in range(first, first + count)]
        if broken:
            lines[-1] = lines[-1][: len(lines[-1]) // 2]
        text = b"".join(lines).removeprefix(self._begun.pop(source.name, b""))
        if broken:
            self._begun[source.name] = lines[-1]
        with self.paths[source.name].open("ab") as file:
            file.write(text)
        self.written[source.name] = first + count - broken
