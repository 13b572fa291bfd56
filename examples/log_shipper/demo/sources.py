"""Find real text to replay: the user's own files, or files that every Unix machine with Python has."""

import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

#: Number of files that the demo finds by itself, and maximum number of files that it is given.
WANTED = 12
AT_MOST = 20
#: A file with fewer lines shows little; a larger file takes long to read.
FEWEST_LINES = 40
LARGEST = 4 * 1024 * 1024
#: Lines are cut at this length: a file may consist of one line.
LONGEST_LINE = 400

#: Places to search, log files first, and the number of files to take from each.
_PLACES = (
    ("/var/log/*.log", 4),
    ("/var/log/*/*.log", 2),
    ("/usr/share/common-licenses/*", 3),
    ("/usr/share/doc/*/copyright", 3),
    (sysconfig.get_path("stdlib") + "/asyncio/[a-z]*.py", 4),
    (sysconfig.get_path("stdlib") + "/[a-z]*.py", WANTED),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A text whose lines are replayed, over and over, as the log file ``name``."""

    name: str
    origin: Path
    lines: list[bytes]

    def line(self, number: int) -> bytes:
        """Return the line with this number. The number in it makes every line of the file different."""
        return b"%07d %s" % (number, self.lines[number % len(self.lines)])


def found() -> list[Source]:
    """Pick files of this machine."""
    taken: dict[str, Source] = {}
    for pattern, most in _PLACES:
        _take(_matching(pattern), taken, min(WANTED, len(taken) + most))
    return list(taken.values())


def given(patterns: Iterable[str]) -> tuple[list[Source], list[str]]:
    """Take the files that the user names by path or pattern; return them and the paths that were left out."""
    paths = [path for pattern in patterns for path in _matching(pattern) or [pattern]]
    taken: dict[str, Source] = {}
    _take(paths, taken, AT_MOST, fewest=1)
    used = {source.origin for source in taken.values()}
    return list(taken.values()), [path for path in paths if Path(path).resolve() not in used]


def _matching(pattern: str) -> list[str]:
    return sorted(glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns as well


def _take(paths: Iterable[str], taken: dict[str, Source], until: int, fewest: int = FEWEST_LINES) -> None:
    origins = {source.origin for source in taken.values()}
    for path in paths:
        origin = Path(path).resolve()
        if len(taken) >= until:
            return
        if origin in origins:
            continue
        lines = _text_lines(origin)
        if len(lines) >= fewest:
            name = next(name for name in _names(Path(path)) if name not in taken)
            taken[name] = Source(name, origin, lines)
            origins.add(origin)


def _text_lines(path: Path) -> list[bytes]:
    """Return the lines of a text file; none if the file is not text or not readable."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        data = path.read_bytes()
    except OSError:
        return []
    return [] if b"\0" in data else [line[:LONGEST_LINE] for line in data.removesuffix(b"\n").split(b"\n")]


def _names(path: Path) -> Iterator[str]:
    """Yield names for the log file, the shortest first."""
    stem = path.parent.name if path.stem in {"copyright", "changelog"} else path.stem
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in stem)
    yield f"{plain}.log"
    number = 2
    while True:
        yield f"{plain}-{number}.log"
        number += 1
