"""A record of what really ran, written by the daemons themselves, so that tests need not trust the address book."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Launchers whose daemons record themselves, to be put after the prelude of a project. Each process appends to one file
#: with short, hence atomic, writes. All processes of one machine share the monotonic clock.
RECORDED_LAUNCHERS = """\
def record(word, ctx):
    line = f"{word} {ctx.name} {ctx.token} {os.getpid()} {time.monotonic():.6f}\\n"
    fd = os.open(Path(FOLDER) / "recorder", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@daemons.launcher("watch")
async def watch(ctx, number=0):
    record("begins", ctx)
    while True:
        record("alive", ctx)
        await asyncio.sleep(0.02)


@daemons.launcher("alone", stop_grace=2)
def alone(ctx, number=0):
    record("begins", ctx)
    while not ctx.stopping.is_set():
        record("alive", ctx)
        ctx.sleep(0.02)
"""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run of one daemon, from its first to its last record; monotonic seconds."""

    name: str
    token: int
    pid: int
    first: float
    last: float


class Recorder:
    """Reads what the daemons of a project recorded."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "recorder"
        self._offset = 0
        #: First and last record of each run so far. The file only grows, and tests poll it.
        self._times: dict[tuple[str, int, int], tuple[float, float]] = {}

    def runs(self) -> dict[str, list[RecordedRun]]:
        """Return the runs of each daemon, ordered by their first records."""
        self._read()
        found: dict[str, list[RecordedRun]] = defaultdict(list)
        for (name, token, pid), (first, last) in self._times.items():
            found[name].append(RecordedRun(name, token, pid, first, last))
        return {name: sorted(runs, key=lambda run: run.first) for name, runs in found.items()}

    def tokens(self, name: str) -> list[int]:
        """Return the tokens of a daemon's runs, ordered by their first records."""
        return [run.token for run in self.runs().get(name, [])]

    def check(self) -> None:
        """Fail unless no two runs of a daemon overlap and each run has a higher token than the one before."""
        for name, runs in self.runs().items():
            for earlier, later in pairwise(runs):
                assert earlier.last < later.first, f"{name} ran twice: {earlier} and {later}"
                assert earlier.token < later.token, f"the token of {name} decreased: {earlier} and {later}"

    def _read(self) -> None:
        """Read the complete lines that were added since the last call."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        # The last line may not be complete yet.
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.decode().splitlines():
            _, name, token, pid, text = line.split()
            key, at = (name, int(token), int(pid)), float(text)
            first, last = self._times.get(key, (at, at))
            self._times[key] = (min(first, at), max(last, at))
