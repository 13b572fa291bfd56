"""One client in many threads, and on both sides of a fork: everybody gets the answer to their own question."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest

from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from tests.store.driver import StoreDriver
from tests.support.clients import TestClient as Client
from tests.support.servers import Server

NAMES = [f"x{number}" for number in range(32)]
#: Look-ups of each thread and process: enough that they meet on the way.
TIMES = 200


@pytest.fixture
def client(valkey: Server, namespace: str) -> Iterator[Client]:
    """A client that has been used, of a cluster that runs some daemons."""
    one = Client.connect(valkey.url, namespace, vnodes=40)
    StoreDriver(Store(valkey.url, Keys(namespace))).started(*NAMES)
    assert one.locate(NAMES[0]) is not None
    yield one
    one.close()


def mistakes(client: Client, name: str) -> int:
    """How many of many look-ups do not find this daemon."""
    found = (client.locate(name) for _ in range(TIMES))
    return sum(address is None or address.name != name for address in found)


def test_many_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        wrong = list(pool.map(lambda name: mistakes(client, name), NAMES))
        many = list(pool.map(lambda _: set(client.locate_many(NAMES)), range(16)))

    assert wrong == [0] * len(NAMES)
    assert many == [set(NAMES)] * 16


def test_processes_that_were_forked_with_a_client_do_not_read_each_others_answers(client: Client) -> None:
    """A connection that two processes read from gives each the other's answers."""
    context = multiprocessing.get_context("fork")

    def look(name: str, tell: Connection) -> None:
        tell.send(mistakes(client, name))

    pipes, children = [], []
    for name in NAMES[:4]:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=look, args=(name, theirs))
        child.start()
        pipes.append(ours)
        children.append(child)
    own = mistakes(client, NAMES[10])
    told = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join(10)

    assert (own, told) == (0, [0] * 4)
