"""The proxy causes the requested network fault, and heals it."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy
from tests.support.servers import HOST
from tests.support.waiting import wait_until

#: Long enough that an answer that could come would have come.
SILENCE = 0.2


class Echo(socketserver.StreamRequestHandler):
    """Sends back each line, and says on the server's list that it saw it."""

    def handle(self) -> None:
        for line in self.rfile:
            self.server.seen.append(line)  # type: ignore[attr-defined]
            self.wfile.write(line)
        self.server.seen.append(b"goodbye")  # type: ignore[attr-defined]


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    seen: list[bytes]

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: connections are meant to break here."""


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer((HOST, 0), Echo) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[Proxy]:
    with Proxy(echo.server_address[1]) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=5)


def ask(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    return client.recv(100)


def silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE)
    try:
        client.recv(100)
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)
    return False


def test_bytes_and_the_end_of_a_connection_pass_in_both_directions(proxy: Proxy, echo: EchoServer) -> None:
    with connect(proxy) as client:
        assert ask(client, b"hello\n") == b"hello\n"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""

    assert echo.seen == [b"hello\n", b"goodbye"]
    wait_until(lambda: proxy.connections == 0, within=5, because="the only client has left")


def test_a_cut_resets_connections_and_serves_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client, b"hello\n")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(100)

    with connect(proxy) as client:
        assert ask(client, b"again\n") == b"again\n"


def test_a_refusing_proxy_resets_new_connections_until_it_is_healed(proxy: Proxy) -> None:
    proxy.refuse()

    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        ask(client, b"hello\n")

    proxy.heal()
    with connect(proxy) as client:
        assert ask(client, b"again\n") == b"again\n"


def test_a_hole_swallows_requests_and_healing_resets_connections_that_lost_bytes(
    proxy: Proxy, echo: EchoServer
) -> None:
    with connect(proxy) as client, connect(proxy) as bystander:
        ask(client, b"hello\n")
        proxy.hole("up")
        client.sendall(b"lost\n")
        assert silent(client)
        assert echo.seen == [b"hello\n"]

        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert ask(bystander, b"well\n") == b"well\n"


def test_a_hole_swallows_replies_to_requests_that_were_served(proxy: Proxy, echo: EchoServer) -> None:
    with connect(proxy) as client:
        proxy.hole("down")
        client.sendall(b"served\n")

        wait_until(lambda: echo.seen == [b"served\n"], within=5, because="requests still pass")
        assert silent(client)


def test_a_hole_swallows_the_end_of_a_connection_until_healed(proxy: Proxy, echo: EchoServer) -> None:
    with connect(proxy) as client:
        ask(client, b"hello\n")
        proxy.hole()

    time.sleep(SILENCE)
    assert echo.seen == [b"hello\n"]

    proxy.heal()
    wait_until(lambda: proxy.connections == 0, within=5, because="the connection lost its goodbye")


def test_held_bytes_arrive_when_the_proxy_is_healed(proxy: Proxy, echo: EchoServer) -> None:
    with connect(proxy) as client:
        proxy.hold("up")
        client.sendall(b"late\n")
        assert silent(client)
        assert echo.seen == []

        proxy.heal()
        assert client.recv(100) == b"late\n"


def test_delayed_bytes_arrive_in_sequence(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.1)
        began = time.monotonic()
        client.sendall(b"first\n")
        client.sendall(b"second\n")
        answer = b""
        while len(answer) < len(b"first\nsecond\n"):
            answer += client.recv(100)

    assert answer == b"first\nsecond\n"
    assert 0.2 <= time.monotonic() - began < 2


def test_a_cut_reaches_connections_whose_bytes_are_held(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.hold()
        client.sendall(b"never\n")
        proxy.cut()

        with pytest.raises(ConnectionResetError):
            client.recv(100)
    wait_until(lambda: proxy.connections == 0, within=5, because="the only connection was cut")


def test_a_stopped_server_appears_stopped_through_the_proxy(proxy: Proxy, echo: EchoServer) -> None:
    echo.shutdown()
    echo.server_close()

    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        ask(client, b"hello\n")
