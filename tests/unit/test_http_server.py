"""The agent's HTTP server answers what it should, and no client can exhaust it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from celery_daemons.node import http_server
from celery_daemons.node.http_server import HttpAnswer, HttpServer

Talk = Callable[[bytes], Awaitable[bytes]]


def answer(path: str, accept: str) -> HttpAnswer:
    if path == "/broken":
        raise RuntimeError("a defect")
    return HttpAnswer(status=200, body=f"{path} {accept}".encode())


class Running:
    """A server on a port of its own, and the problems that it reports."""

    def __init__(self, port: int, problems: list[str]) -> None:
        self.port = port
        self.problems = problems

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, request: bytes) -> bytes:
        """Send a request, and return everything that comes back."""
        reader, writer = await self.connect()
        writer.write(request)
        found = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return found


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Run a server until the end of the block."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    listens = asyncio.Event()
    problems: list[str] = []

    def note(problem: str) -> None:
        problems.append(problem)
        listens.set()

    server = HttpServer(node="n1", host="127.0.0.1", port=port, answer=answer, report_problem=note)
    task = asyncio.create_task(server.run())
    await asyncio.wait_for(listens.wait(), 30)
    try:
        yield Running(port, problems)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_get_is_answered_with_path_and_accept_header_and_the_connection_closed() -> None:
    async def scenario() -> bytes:
        async with running() as server:
            return await server.talk(b"GET /livez?verbose HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n")

    found = asyncio.run(scenario())

    assert found.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in found.lower()
    assert found.endswith(b"\r\n\r\n/livez text/plain")


def test_a_head_has_the_length_and_no_body() -> None:
    async def scenario() -> bytes:
        async with running() as server:
            return await server.talk(b"HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n")

    found = asyncio.run(scenario())

    assert b"content-length: 7" in found.lower()
    assert found.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n", b"500"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(request_bytes: bytes, status: bytes) -> None:
    async def scenario() -> bytes:
        async with running() as server:
            return await server.talk(request_bytes)

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 " + status)


def test_idle_clients_cannot_block_a_probe() -> None:
    """Attacks: clients could use up all connections of the server."""

    async def scenario() -> tuple[bytes, bytes]:
        async with running() as server:
            # Given more connections than the server keeps, none of which sends anything
            idle = [await server.connect() for _ in range(3 * http_server._MOST_CONNECTIONS)]
            # When a probe comes
            found = await server.talk(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            # Then it is answered, and the oldest connection is closed
            with suppress(ConnectionResetError):
                return found, await asyncio.wait_for(idle[0][0].read(), 30)
            return found, b""

    found, of_the_oldest = asyncio.run(scenario())

    assert found.startswith(b"HTTP/1.1 200 ")
    assert of_the_oldest == b""


def test_a_client_that_sends_too_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_TIMEOUT", 0.2)

    async def scenario() -> bytes:
        async with running() as server:
            reader, writer = await server.connect()
            writer.write(b"GET /livez HT")
            with suppress(ConnectionResetError):
                return await asyncio.wait_for(reader.read(), 30)
            return b""

    assert asyncio.run(scenario()) == b""


def test_an_address_in_use_is_reported_once_and_served_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_FIRST_RETRY", 0.01)
    monkeypatch.setattr(http_server, "_LONGEST_RETRY", 0.02)

    async def scenario() -> list[str]:
        problems: list[str] = []
        refused, listens = asyncio.Event(), asyncio.Event()

        def note(problem: str) -> None:
            problems.append(problem)
            (refused if problem else listens).set()

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = HttpServer(node="n1", host="127.0.0.1", port=port, answer=answer, report_problem=note)
            task = asyncio.create_task(server.run())
            # Given attempts that have failed
            await asyncio.wait_for(refused.wait(), 30)
            await asyncio.sleep(0.1)
        # When the address is free
        await asyncio.wait_for(listens.wait(), 30)
        task.cancel()
        return problems

    problems = asyncio.run(scenario())

    assert len(problems) == 2
    assert "Address already in use" in problems[0]
    assert problems[1] == ""
