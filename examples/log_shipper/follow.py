"""Read whole lines of a log file after a position, across truncation and rotation."""

import os
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: Bytes that one step reads and ships at most; a longer line is shipped in pieces of this size.
CHUNK = 64 * 1024


class Position(NamedTuple):
    """A place in a file. The inode identifies the file, because rotation gives its name to another file."""

    inode: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}" if self.inode else ""

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Parse a position; an empty text is the start of a file that was not read yet."""
        inode, _, offset = text.partition(":")
        return cls(int(inode), int(offset)) if text else cls()


def read_lines(path: str, position: Position) -> tuple[list[bytes], Position]:
    """Return the next whole lines and the position after them, or the same position if there is nothing to do.

    * A last line without a line end is left until it is complete.
    * A file that is shorter than the position was truncated: it is read from its start.
    * A file with another inode has replaced a rotated one. The rest of the rotated file (for example ``app.log.1``
      beside ``app.log``) comes first, up to its last byte once the new file has been written to.
    * A file that does not exist has no lines.

    The call blocks while the disk reads one chunk. On a network file system, use ``asyncio.to_thread``.
    """
    file = Path(path)
    current = _stat(file)
    if current is not None and current.st_ino == position.inode:
        return _read(file, position, finished=False)
    rotated = _named(file, position.inode) if position.inode else None
    # Determined before the old file is read, so that everything written to it before the new file began is read.
    finished = current is not None and current.st_size > 0
    if rotated is not None:
        lines, after = _read(rotated, position, finished=finished)
        if lines or not finished:
            return lines, after
    if current is None:
        return [], position
    return [], Position(current.st_ino, 0)


def _read(path: Path, position: Position, *, finished: bool) -> tuple[list[bytes], Position]:
    # The file may be renamed or removed meanwhile; the next call finds it under its new name, or not at all.
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
    # A piece without a line end counts as a line if nothing can follow, or if the line is longer than a chunk.
    whole = not end and (finished or len(data) == CHUNK)
    return data if whole else data[:end]


def _stat(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def _named(path: Path, inode: int) -> Path | None:
    """Return the path of a rotated file beside ``path``, by its inode."""
    for other in path.parent.glob(escape(path.name) + "[.-]*"):
        found = _stat(other)
        if found is not None and found.st_ino == inode:
            return other
    return None
