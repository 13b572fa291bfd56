"""Reading on in a log file: whole lines after a position, through truncation and rotation."""

import os
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: The most that is read, and shipped, in one step; a line longer than that is shipped in pieces of this size.
CHUNK = 64 * 1024


class Position(NamedTuple):
    """A place in a file, which is known by its inode: its name may be another file's tomorrow."""

    inode: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}" if self.inode else ""

    @classmethod
    def parse(cls, text: str) -> "Position":
        """The position back from its text; nothing is the start of a file not yet seen."""
        inode, _, offset = text.partition(":")
        return cls(int(inode), int(offset)) if text else cls()


def read_lines(path: str, position: Position) -> tuple[list[bytes], Position]:
    """Return the next whole lines and the position after them; the same position when there is nothing to do.

    * A last line without its end waits for it.
    * A file that is shorter than the position was truncated: it is read from its start.
    * A file with another inode has taken the place of a rotated one. What is left in that (``app.log.1``, say, beside
      ``app.log``) comes first, to its last byte once the new file has been written to.
    * A file that is not there yet, or not at the moment, has no lines.

    Blocks for as long as the disk takes for one chunk. On a network file system, use ``asyncio.to_thread``.
    """
    file = Path(path)
    current = _stat(file)
    if current is not None and current.st_ino == position.inode:
        return _read(file, position, finished=False)
    rotated = _named(file, position.inode) if position.inode else None
    # Seen before the old file is read: what was written to that before the new one was begun, is read then.
    finished = current is not None and current.st_size > 0
    if rotated is not None:
        lines, after = _read(rotated, position, finished=finished)
        if lines or not finished:
            return lines, after
    if current is None:
        return [], position
    return [], Position(current.st_ino, 0)


def _read(path: Path, position: Position, *, finished: bool) -> tuple[list[bytes], Position]:
    # Renamed or removed since it was looked for: the next look finds it under its new name, or not at all.
    with suppress(FileNotFoundError), path.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_ino == position.inode:
            start = position.offset if position.offset <= found.st_size else 0
            return _lines_of(_whole_lines(file, start, finished=finished), position.inode, start)
    return [], position


def _lines_of(data: bytes, inode: int, start: int) -> tuple[list[bytes], Position]:
    if not data:
        return [], Position(inode, start)
    return data.removesuffix(b"\n").split(b"\n"), Position(inode, start + len(data))


def _whole_lines(file: BinaryIO, start: int, *, finished: bool) -> bytes:
    file.seek(start)
    data = file.read(CHUNK)
    end = data.rfind(b"\n") + 1
    # A piece without an end is a line if no more can come, or if waiting for its end would take more than a chunk.
    whole = not end and (finished or len(data) == CHUNK)
    return data if whole else data[:end]


def _stat(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def _named(path: Path, inode: int) -> Path | None:
    """The name beside ``path`` under which a rotated file is now."""
    for other in path.parent.glob(escape(path.name) + "[.-]*"):
        found = _stat(other)
        if found is not None and found.st_ino == inode:
            return other
    return None
