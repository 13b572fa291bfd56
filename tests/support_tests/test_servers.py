"""A server of the tests' own can be broken in each way that the fault tests need."""

import socket
from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.conftest import FLAVOURS, NewServer
from tests.support.servers import HOST, Server, free_port

Broken = (RedisConnectionError, RedisTimeoutError)


@pytest.fixture(params=FLAVOURS)
def own(request: pytest.FixtureRequest, new_server: NewServer) -> Server:
    return new_server(flavour=FLAVOURS[request.param])


def remembers(server: Server) -> bool:
    with server.client() as client:
        return bool(client.get("key") == "value")


def tell(server: Server) -> None:
    with server.client() as client:
        client.set("key", "value")


def test_the_shared_servers_are_of_the_requested_flavour(server: Server, namespace: str) -> None:
    with server.client() as client:
        info = client.info("server")
        assert ("valkey_version" in info) == (server.flavour == "valkey")
        client.set(f"{namespace}:key", "value", ex=60)

    assert server.url == f"redis://{HOST}:{server.port}/0"


def test_a_server_listens_on_loopback_only_and_keeps_nothing(own: Server) -> None:
    with own.client() as client:
        assert client.config_get("bind", "save", "appendonly") == {"bind": HOST, "save": "", "appendonly": "no"}


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
def test_a_server_that_ended_starts_again_on_its_port_without_its_data(
    own: Server, end: Callable[[Server], None]
) -> None:
    tell(own)
    port = own.port

    end(own)
    assert not own.running
    own.start()

    assert own.port == port
    assert not remembers(own)


def test_a_restart_keeps_the_data_when_asked_to(own: Server) -> None:
    tell(own)

    own.restart(keep_data=True)
    assert remembers(own)

    own.kill()
    own.start()
    assert not remembers(own), "the snapshot of an earlier restart came back after a crash"


def test_a_restart_loses_the_data_when_asked_to(own: Server) -> None:
    tell(own)
    first = own.pid

    own.restart(keep_data=False)

    assert own.pid != first
    assert not remembers(own)


def test_a_paused_server_keeps_its_connections_and_answers_nothing(own: Server) -> None:
    tell(own)
    own.pause()

    with socket.create_connection((HOST, own.port), timeout=0.2) as knock:
        knock.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            knock.recv(10)

    own.resume()
    assert remembers(own)


def test_a_paused_server_can_be_stopped(own: Server) -> None:
    own.pause()
    own.stop()
    assert not own.running


def test_lines_of_configuration_come_after_the_defaults(new_server: NewServer) -> None:
    server = new_server("appendonly yes", "appendfsync always", "maxmemory 64mb")
    tell(server)

    server.kill()
    server.start()

    assert remembers(server)


def test_a_replica_can_be_promoted(new_server: NewServer) -> None:
    primary = new_server()
    tell(primary)
    replica = new_server(f"replicaof {HOST} {primary.port}")

    with replica.client() as client:
        primary.kill()
        client.replicaof("NO", "ONE")
        assert client.info("replication")["role"] == "master"


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with status 1.*no-such-option"),
        Server("valkey", "no-such-option yes"),
    ):
        pass


def test_a_stopped_server_leaves_no_folder() -> None:
    with Server() as server:
        folder = server.folder
    assert not folder.exists()


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(10_000 <= free_port() < 32_768 for _ in range(20))
