"""Check what daemons record about themselves: each record is checked as it is read, and not kept."""

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

#: Launchers whose daemons sign twenty times a second, into a file per process.
RECORDED_LAUNCHERS = """\
_fd = None

def sign(ctx):
    global _fd
    if _fd is None or _fd[0] != os.getpid():
        name = f"{FOLDER}/signs/{os.getpid()}.{time.monotonic_ns()}"
        _fd = (os.getpid(), os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    os.write(_fd[1], f"{ctx.name} {ctx.token} {time.monotonic():.6f}\\n".encode())


@daemons.launcher("walk", max_restarts=1000, backoff=0.1, backoff_max=1.0)
async def walk(ctx, number):
    while True:
        sign(ctx)
        await asyncio.sleep(0.05)


@daemons.launcher("solo", max_restarts=1000, backoff=0.1, backoff_max=1.0, stop_grace=2)
def solo(ctx, number):
    while not ctx.stopping.is_set():
        sign(ctx)
        ctx.sleep(0.05)


@walk.recovery_scanner
def walks():
    yield [walk.spec(f"walk.{number}", number=number) for number in range(WALKS)]


@solo.recovery_scanner
def solos():
    return [solo.spec(f"solo.{number}", number=number) for number in range(SOLOS)]
"""

#: Seconds without growth after which a file is removed: its process has ended.
_QUIET = 60.0


@dataclass(slots=True)
class _Run:
    """One run of a daemon: its token, its first record, and its last so far."""

    token: int
    began: float
    last_seen: float


@dataclass(slots=True)
class Violation:
    """Two runs at once, or a token that decreased."""

    kind: str
    name: str
    text: str


@dataclass(slots=True)
class Recorder:
    """Follows the records: a record of a run after the first record of a later run is an overlap.

    A run is what has written under one token. Of two runs, the later one must have the larger token.
    """

    folder: Path
    #: The run that began last, by name.
    newest: dict[str, _Run] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    records: int = 0
    runs: int = 0
    #: ``(name, token, began)`` of the newest runs.
    begun: deque[tuple[str, int, float]] = field(default_factory=lambda: deque(maxlen=20_000))
    _tokens: dict[str, set[int]] = field(default_factory=dict)
    _files: dict[Path, tuple[int, float, bytes]] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was written since the last time, in the order of time over all processes."""
        found: list[tuple[float, str, int]] = []
        now = time.monotonic()
        for path in self.folder.iterdir():
            offset, grown, rest = self._files.get(path, (0, now, b""))
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            if data:
                lines = (rest + data).split(b"\n")
                self._files[path] = (offset + len(data), now, lines.pop())
                for line in lines:
                    name, token, at = line.decode().split()
                    found.append((float(at), name, int(token)))
            elif now - grown > _QUIET:
                path.unlink()
                self._files.pop(path, None)
        for record in sorted(found):
            self._judge(*record)

    def alive(self, name: str, *, since: float) -> bool:
        """Return whether a daemon has written a record since a moment."""
        run = self.newest.get(name)
        return run is not None and run.last_seen > since

    def _judge(self, at: float, name: str, token: int) -> None:
        self.records += 1
        newest, tokens = self.newest.get(name), self._tokens.setdefault(name, set())
        if newest is not None and token == newest.token:
            newest.last_seen = max(newest.last_seen, at)
        elif token in tokens:
            assert newest is not None
            if at > newest.began:
                self._blame(
                    "overlap", name, f"token {token} wrote at {at:.3f}, {newest.token} began at {newest.began:.3f}"
                )
        elif newest is not None and at < newest.began:
            # This was a short run, whose file was read late.
            if token > newest.token:
                self._blame("token decreased", name, f"token {newest.token} began at {newest.began:.3f}, after {token}")
            self._begin(name, token, at, tokens)
        else:
            if newest is not None and at < newest.last_seen:
                self._blame(
                    "overlap",
                    name,
                    f"token {token} began at {at:.3f}, {newest.token} last wrote at {newest.last_seen:.3f}",
                )
            if newest is not None and token < newest.token:
                self._blame("token decreased", name, f"token {token} began at {at:.3f}, after {newest.token}")
            self._begin(name, token, at, tokens)
            self.newest[name] = _Run(token, at, at)

    def _begin(self, name: str, token: int, at: float, tokens: set[int]) -> None:
        tokens.add(token)
        self.begun.append((name, token, at))
        self.runs += 1

    def _blame(self, kind: str, name: str, text: str) -> None:
        self.violations.append(Violation(kind, name, text))
