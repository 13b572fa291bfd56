"""Length-prefixed MessagePack between the processes of one node."""

import asyncio
import socket
import struct
import threading
from typing import Any, Generic, TypeVar

import msgspec

M = TypeVar("M")

_LENGTH = struct.Struct("!I")
#: No frame of ours comes near; a longer one means that the stream is out of step.
_LONGEST = 64 * 1024 * 1024
_encoder = msgspec.msgpack.Encoder()


class ChannelClosed(Exception):
    """The other side is gone, or what came was no frame of ours."""


def pack(message: Any) -> bytes:
    """One message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def read_one(sock: socket.socket, kind: Any) -> Any:
    """Wait for the first message and take no byte of what follows it; raises ChannelClosed."""
    try:
        head = sock.recv(_LENGTH.size, socket.MSG_WAITALL)
        if len(head) < _LENGTH.size:
            raise ChannelClosed("end of file")
        (length,) = _LENGTH.unpack(head)
        return msgspec.msgpack.decode(sock.recv(length, socket.MSG_WAITALL), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise ChannelClosed(str(error)) from error


class Frames(Generic[M]):
    """Messages out of the bytes that came."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """The messages that are complete with ``data``; raises ChannelClosed for what is no frame."""
        self._buffer += data
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if length > _LONGEST:
                raise ChannelClosed(f"a frame of {length} bytes")
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                found.append(self._decoder.decode(body))
            except msgspec.MsgspecError as error:
                raise ChannelClosed(str(error)) from error
        return found


class Channel(Generic[M]):
    """The blocking end, for hosts and monitor: one thread receives, any thread sends."""

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        self._sock = sock
        self._frames: Frames[M] = Frames(kind)
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For ``select``."""
        return self._sock.fileno()

    def send(self, message: Any) -> None:
        """Send one message; raises ChannelClosed."""
        frame = pack(message)
        try:
            with self._sending:
                self._sock.sendall(frame)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> list[M]:
        """Wait for messages and return all that have come; raises ChannelClosed."""
        found: list[M] = []
        while not found:
            try:
                data = self._sock.recv(262144)
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            if not data:
                raise ChannelClosed("end of file")
            found = self._frames.feed(data)
        return found


class AsyncChannel(Generic[M]):
    """The agent's end."""

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
        """Queue one message; one for a peer that is gone is dropped, its end is seen elsewhere."""
        if not self._writer.is_closing():
            self._writer.write(pack(message))

    async def receive(self) -> M:
        """The next message; raises ChannelClosed."""
        try:
            head = await self._reader.readexactly(_LENGTH.size)
            (length,) = _LENGTH.unpack(head)
            if length > _LONGEST:
                raise ChannelClosed(f"a frame of {length} bytes")
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, msgspec.MsgspecError) as error:
            raise ChannelClosed(str(error)) from error

    def close(self) -> None:
        """Close the socket; the peer reads end of file."""
        self._writer.close()
