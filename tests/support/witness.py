"""A witness of what really ran: every daemon writes down when it lived, and the lives of one name must not overlap."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: The launchers of a witnessed project, to be put after the prelude. Each life appends to one file: on one machine all
#: processes share the monotonic clock. A short append is atomic.
WITNESSED = """\
def testify(word, ctx):
    line = f"{word} {ctx.name} {ctx.token} {os.getpid()} {time.monotonic():.6f}\\n"
    fd = os.open(Path(FOLDER) / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@daemons.launcher("watch")
async def watch(ctx, number=0):
    testify("begins", ctx)
    while True:
        testify("lives", ctx)
        await asyncio.sleep(0.02)


@daemons.launcher("alone", stop_grace=2)
def alone(ctx, number=0):
    testify("begins", ctx)
    while not ctx.stopping.is_set():
        testify("lives", ctx)
        ctx.sleep(0.02)
"""


@dataclass(frozen=True, slots=True)
class LifeSeen:
    """One start of one daemon, from its first to its last sign of life; monotonic seconds."""

    name: str
    token: int
    pid: int
    first: float
    last: float


class Witness:
    """Reads what the daemons of a project wrote."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "witness"

    def lives(self) -> dict[str, list[LifeSeen]]:
        """All lives by name, in the order of their beginnings."""
        signs: dict[tuple[str, int, int], list[float]] = defaultdict(list)
        written = self._file.read_text() if self._file.exists() else ""
        # The end of a line may still be on its way.
        for line in written[: written.rfind("\n") + 1].splitlines():
            _, name, token, pid, at = line.split()
            signs[name, int(token), int(pid)].append(float(at))
        found: dict[str, list[LifeSeen]] = defaultdict(list)
        for (daemon, number, process), times in signs.items():
            found[daemon].append(LifeSeen(daemon, number, process, min(times), max(times)))
        return {name: sorted(lives, key=lambda life: life.first) for name, lives in found.items()}

    def tokens(self, name: str) -> list[int]:
        """The tokens of a daemon's lives so far."""
        return [life.token for life in self.lives().get(name, [])]

    def check(self) -> None:
        """Fail unless no two lives of a name overlap and each has a higher token than the one before."""
        for name, lives in self.lives().items():
            for earlier, later in pairwise(lives):
                assert earlier.last < later.first, f"{name} ran twice: {earlier} and {later}"
                assert earlier.token < later.token, f"the token of {name} fell: {earlier} and {later}"
