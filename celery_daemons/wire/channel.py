"""Send and receive length-prefixed MessagePack between the processes of a node."""

import asyncio
import socket
import struct

# Bound here, before gevent can replace it: the thread of a host that receives is a real one.
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

M = TypeVar("M")
T = TypeVar("T")

_LENGTH = struct.Struct("!I")
#: Bytes. A longer frame means that the stream is out of step: senders cut batches at a fraction of it.
LONGEST: Final = 64 * 1024 * 1024
#: The most bytes of the variable parts of a batch, such as arguments and errors.
BATCH_BYTES: Final = 8 * 1024 * 1024
_encoder = msgspec.msgpack.Encoder()


class ChannelClosed(Exception):
    """The peer has closed the socket, or has sent something that is not a valid frame."""


def pack(message: Any) -> bytes:
    """Encode a message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut items into lists whose sizes add up to :data:`BATCH_BYTES` at most; a larger item is alone in a list."""
    batch: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and total + size > BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def read_one(sock: socket.socket, kind: Any) -> Any:
    """Wait for a message and read no byte beyond the end. Raises ChannelClosed."""
    try:
        head = sock.recv(_LENGTH.size, socket.MSG_WAITALL)
        if len(head) < _LENGTH.size:
            raise ChannelClosed("end of file")
        (length,) = _LENGTH.unpack(head)
        return msgspec.msgpack.decode(sock.recv(length, socket.MSG_WAITALL), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise ChannelClosed(str(error)) from error


class Frames(Generic[M]):
    """Decode a stream of bytes into messages."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """Add ``data`` and return the messages that are now complete. Raises ChannelClosed for an invalid frame."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if length > LONGEST:
                raise ChannelClosed(f"a frame of {length} bytes is longer than the limit of {LONGEST}")
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                messages.append(self._decoder.decode(body))
            except msgspec.MsgspecError as error:
                raise ChannelClosed(str(error)) from error
        return messages


class Channel(Generic[M]):
    """The blocking end, for hosts and the monitor. A single thread receives; any thread may send."""

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        self._sock = sock
        self._frames: Frames[M] = Frames(kind)
        self._sending = allocate_lock()

    def fileno(self) -> int:
        """Return the descriptor of the socket, for ``select``."""
        return self._sock.fileno()

    def send(self, message: Any) -> None:
        """Send a message. Raises ChannelClosed."""
        frame = pack(message)
        try:
            with self._sending:
                self._sock.sendall(frame)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[M]:
        """Wait for a message and return all that have arrived. Raises ChannelClosed."""
        messages: list[M] = []
        while not messages:
            try:
                data = self._sock.recv(262144)
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not data:
                raise ChannelClosed("end of file")
            messages = self._frames.feed(data)
        return messages


class AsyncChannel(Generic[M]):
    """The end in the agent, for asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)

    @classmethod
    async def over(cls, sock: socket.socket, kind: Any) -> "AsyncChannel[M]":
        """Wrap a connected socket."""
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, kind)

    def send(self, message: Any) -> None:
        """Queue a message, or drop the message if the peer is gone; the end of the peer is detected elsewhere."""
        if not self._writer.is_closing():
            self._writer.write(pack(message))

    async def receive(self) -> M:
        """Wait for the next message. Raises ChannelClosed."""
        try:
            head = await self._reader.readexactly(_LENGTH.size)
            (length,) = _LENGTH.unpack(head)
            if length > LONGEST:
                raise ChannelClosed(f"a frame of {length} bytes is longer than the limit of {LONGEST}")
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, msgspec.MsgspecError) as error:
            raise ChannelClosed(str(error)) from error

    def close(self) -> None:
        """Close the socket; the peer then reads end of file."""
        self._writer.close()
