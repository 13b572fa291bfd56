"""The last log lines of each daemon of a host, in a file that the host writes and the agent reads.

A file, not the memory of the host: the lines outlive a host that dies, and the agent reads them while the host is
blocked. The file has blocks of 1 KiB. A block belongs to one daemon, and the oldest blocks are used again.
"""

import os
import struct

# Bound here, before gevent can replace it: a greenlet and the thread that renews the lease may both log.
from _thread import allocate_lock
from collections import deque
from hashlib import blake2b
from typing import Final

import msgspec

#: Bytes of a block, its header included.
BLOCK: Final = 1024
#: Blocks of one daemon: 64 KiB.
BLOCKS_PER_DAEMON: Final = 64
#: Blocks of one host: 4 MiB. Above that, the oldest lines of any daemon are lost first.
BLOCKS_PER_HOST: Final = 4096
#: Characters of a message that are kept, from its end: the end of a traceback has the error.
_MESSAGE_LENGTH: Final = 8000
#: Lines that wait while another thread writes.
_LONGEST_QUEUE: Final = 10_000

#: A number that grows with every block, the digest of the daemon's name, and whether a line starts with the block.
_HEADER: Final = struct.Struct("<Q16s?")
_ROOM: Final = BLOCK - _HEADER.size
_ENCODER: Final = msgspec.json.Encoder()


class LogLine(msgspec.Struct, array_like=True, frozen=True):
    """A line of a daemon's log.

    ``number`` grows with every line of a host. ``at`` is Unix time in seconds by the clock of the host's machine.
    ``level`` is the name of a log level, or ``stdout`` or ``stderr``.
    """

    number: int
    token: int
    at: float
    level: str
    logger: str
    message: str


_DECODER: Final = msgspec.json.Decoder(LogLine)


class _Owner:
    """The blocks of a daemon, oldest first, and the bytes that are used of the last."""

    __slots__ = ("blocks", "digest", "used")

    def __init__(self, name: str) -> None:
        self.digest = _digest(name)
        self.blocks: deque[int] = deque()
        self.used = _ROOM


class LogRing:
    """Writes the file. Any thread and any signal handler may append: no caller waits for another caller."""

    def __init__(self, path: str) -> None:
        """Create the file. Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._queue: deque[tuple[str, int, float, str, str, str]] = deque(maxlen=_LONGEST_QUEUE)
        self._writing = allocate_lock()
        self._owners: dict[str, _Owner] = {}
        #: The owner of each block in use, in the order in which the blocks were taken.
        self._taken: dict[int, str] = {}
        self._written_blocks = 0
        self._lines = 0
        # A fork of a daemon would write over the lines of its parent.
        os.register_at_fork(after_in_child=self.close)

    def append(self, name: str, *, token: int, at: float, level: str, logger: str, message: str) -> None:
        """Append a line to the log of a daemon. The ring closes for good if the file cannot be written."""
        if self._fd < 0:
            return
        self._queue.append((name, token, at, level, logger, message[-_MESSAGE_LENGTH:]))
        # The thread that holds the lock writes what others append meanwhile. Checked again after the lock is free: a
        # line may have come between the last check of the queue and the release.
        while self._queue and self._writing.acquire(blocking=False):
            try:
                self._write_queue()
            except OSError:
                self.close()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Write no further line. The file stays."""
        self._fd = -1
        self._queue.clear()

    def _write_queue(self) -> None:
        while self._queue:
            try:
                name, token, at, level, logger, message = self._queue.popleft()
            except IndexError:
                return
            self._lines += 1
            line = LogLine(self._lines, token, at, level, logger, message.encode("utf-8", "replace").decode())
            self._write(name, _ENCODER.encode(line) + b"\n")

    def _write(self, name: str, text: bytes) -> None:
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(name)
        at_start = True
        while text:
            room = _ROOM - owner.used
            if room:
                chunk, text = text[:room], text[room:]
                os.pwrite(self._fd, chunk, owner.blocks[-1] * BLOCK + _HEADER.size + owner.used)
                owner.used += len(chunk)
            else:
                chunk, text = text[:_ROOM], text[_ROOM:]
                self._take_block(name, owner, chunk, at_start=at_start)
            at_start = False

    def _take_block(self, name: str, owner: _Owner, chunk: bytes, *, at_start: bool) -> None:
        if len(owner.blocks) >= BLOCKS_PER_DAEMON:
            number = owner.blocks.popleft()
            del self._taken[number]
        elif len(self._taken) >= BLOCKS_PER_HOST:
            number = next(iter(self._taken))
            loser = self._taken.pop(number)
            self._owners[loser].blocks.popleft()
            if not self._owners[loser].blocks and loser != name:
                del self._owners[loser]
        else:
            number = len(self._taken)
        self._written_blocks += 1
        header = _HEADER.pack(self._written_blocks, owner.digest, at_start)
        os.pwrite(self._fd, (header + chunk).ljust(BLOCK, b"\0"), number * BLOCK)
        owner.blocks.append(number)
        owner.used = len(chunk)
        self._taken[number] = name


def lines_in(data: bytes, name: str) -> list[LogLine]:
    """Return the lines of a daemon in the content of a file, oldest first, without lines that are cut or half written.

    JSON has no NUL, which is what the rest of a block is filled with.
    """
    digest = _digest(name)
    found = []
    for start in range(0, len(data), BLOCK):
        if data[start + 8 : start + 24] == digest and len(data) - start >= _HEADER.size:
            number, _, at_start = _HEADER.unpack_from(data, start)
            found.append((number, at_start, data[start + _HEADER.size : start + BLOCK].partition(b"\0")[0]))
    found.sort()
    text = b"".join(body for _, _, body in found)
    if found and not found[0][1]:
        text = text.partition(b"\n")[2]
    lines = []
    for raw in text.split(b"\n"):
        try:
            lines.append(_DECODER.decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return lines


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
