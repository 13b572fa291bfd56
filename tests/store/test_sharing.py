"""A client that is shared by threads and by forked processes: each caller gets the reply to its own command."""

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
#: Look-ups per thread and process; enough for replies to be mixed up if connections were shared.
TIMES = 200


@pytest.fixture
def client(valkey: Server, namespace: str) -> Iterator[Client]:
    """Return a client that has already been used, for a cluster with some daemons."""
    used = Client.connect(valkey.url, namespace, vnodes=40)
    StoreDriver(Store(valkey.url, Keys(namespace))).started(*NAMES)
    assert used.locate(NAMES[0]) is not None
    yield used
    used.close()


def mistakes(client: Client, name: str) -> int:
    """Look a daemon up many times; return how often the answer was wrong."""
    addresses = (client.locate(name) for _ in range(TIMES))
    return sum(address is None or address.name != name for address in addresses)


def test_many_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        wrong = list(pool.map(lambda name: mistakes(client, name), NAMES))
        many = list(pool.map(lambda _: set(client.locate_many(NAMES)), range(16)))

    assert wrong == [0] * len(NAMES)
    assert many == [set(NAMES)] * 16


def test_forked_processes_do_not_read_each_others_replies(client: Client) -> None:
    """If two processes read from one connection, each may get the replies of the other."""
    context = multiprocessing.get_context("fork")

    def count(name: str, pipe: Connection) -> None:
        pipe.send(mistakes(client, name))

    pipes, children = [], []
    for name in NAMES[:4]:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=count, args=(name, theirs))
        child.start()
        pipes.append(ours)
        children.append(child)
    own = mistakes(client, NAMES[10])
    in_children = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join(10)

    assert (own, in_children) == (0, [0] * 4)
