"""A TCP proxy in front of a server, in a thread of this process, that can simulate network faults.

Give clients the proxy's port. ``up`` is the direction of requests, from client to server; ``down`` that of replies.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from tests.support.servers import HOST, free_port

Direction = Literal["up", "down"]
Which = Literal["up", "down", "both"]

CHUNK = 65_536
#: The thread of the proxy carries out an order within a millisecond; after this long, the thread is dead.
ORDER_LIMIT = 10.0
#: A close with this option resets the connection instead of ending it.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Line:
    """The state of one direction of all connections."""

    delay: float = 0.0
    holding: bool = False
    swallowing: bool = False
    freed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Connection:
    """One client's connection and its counterpart to the server."""

    writers: list[asyncio.StreamWriter]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    #: Bytes were swallowed: the bytes after them would make no sense to the other side.
    lossy: bool = False

    def reset(self) -> None:
        """Reset both sides and discard unsent bytes."""
        self.over.set()
        for writer in self.writers:
            if not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                writer.transport.abort()

    def close(self) -> None:
        """Close both sides after all bytes are sent."""
        for writer in self.writers:
            writer.close()


class Proxy:
    """A TCP proxy to ``port`` on loopback, whose faults are switched on by calls and off by :meth:`heal`.

    Faults change what comes after them; all calls return once the change is in force, and may come from any thread.
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._target = port
        self._lines: dict[Direction, _Line] = {}
        self._connections: set[_Connection] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(ORDER_LIMIT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(ORDER_LIMIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ORDER_LIMIT)
        self._loop.close()

    @property
    def url(self) -> str:
        """Return the URL of database 0 of the server through the proxy."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """Return the number of connected clients."""
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self._order(self._reset_all)

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is made."""

        def order() -> None:
            self._refusing = True
            self._reset_all()

        self._order(order)

    def retarget(self, port: int) -> None:
        """Serve new connections from the server on another port, and reset those to the old one."""

        def order() -> None:
            self._target = port
            self._reset_all()

        self._order(order)

    def hole(self, which: Which = "both") -> None:
        """Swallow what is sent silently, without an error or an end of file.

        Healing resets connections that have lost bytes, as their next exchange would make no sense.
        """
        self._order(lambda: self._set(which, swallowing=True))

    def hold(self, which: Which = "both") -> None:
        """Keep what is sent and deliver it when healed: requests that arrive long after they were made."""
        self._order(lambda: self._set(which, holding=True))

    def delay(self, seconds: float, which: Which = "both") -> None:
        """Deliver what is sent ``seconds`` later than it was sent, in order."""
        self._order(lambda: self._set(which, delay=seconds))

    def heal(self) -> None:
        """End all faults; deliver what was held."""

        def order() -> None:
            self._refusing = False
            self._set("both", holding=False, swallowing=False, delay=0.0)
            for connection in list(self._connections):
                if connection.lossy:
                    connection.reset()

        self._order(order)

    def _order(self, change: Callable[[], None]) -> None:
        """Run ``change`` in the proxy's thread and wait until it is done."""

        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(ORDER_LIMIT)

    def _set(self, which: Which, **changes: float) -> None:
        chosen = self._lines.values() if which == "both" else [self._lines[which]]
        for line in chosen:
            for name, value in changes.items():
                setattr(line, name, value)
            if line.holding:
                line.freed.clear()
            else:
                line.freed.set()

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _listen(self) -> asyncio.Server:
        self._lines = {"up": _Line(), "down": _Line()}
        self._set("both", holding=False)
        return await asyncio.start_server(self._serve, HOST, self.port)

    async def _end(self) -> None:
        self._listener.close()
        self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=ORDER_LIMIT / 2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer])
        self._connections.add(connection)
        try:
            if not self._refusing and await self._carry_both(connection, reader, writer):
                connection.close()
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _carry_both(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Carry both directions until their ends; return False when the connection broke instead."""
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            return False
        connection.writers.append(server_writer)
        over: asyncio.Future[Any] = asyncio.create_task(connection.over.wait())
        carried: asyncio.Future[Any] = asyncio.gather(
            self._carry(self._lines["up"], connection, reader, server_writer),
            self._carry(self._lines["down"], connection, server_reader, writer),
        )
        await asyncio.wait({over, carried}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        carried.cancel()
        outcome = await asyncio.gather(carried, over, return_exceptions=True)
        return not isinstance(outcome[0], BaseException)

    async def _carry(
        self, line: _Line, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one direction of one connection until its end, through whatever fault is in force."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(line, under_way, writer))
        try:
            data = b"?"
            while data:
                try:
                    data = await reader.read(CHUNK)
                except OSError:
                    if not line.swallowing:
                        raise
                    data = b""
                if line.swallowing:
                    # The end or the reset of a connection is lost too: the other side notices nothing until healed.
                    connection.lossy = True
                else:
                    under_way.put_nowait((self._loop.time() + line.delay, data))
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _deliver(
        self, line: _Line, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        """Write what is under way when its time has come; an empty chunk is the end of the stream."""
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - self._loop.time())
            await line.freed.wait()
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
