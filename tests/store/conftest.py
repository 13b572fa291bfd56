"""Fixtures that run the suite against three servers: Debian's Redis, Valkey and fakeredis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fakeredis
import pytest

from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from tests.conftest import FLAVOURS
from tests.conftest import _require as require
from tests.store import leaks
from tests.store.driver import StoreDriver
from tests.support.servers import Server

Connect = Callable[[str], Store]


@pytest.fixture(scope="session", params=[*FLAVOURS, "double"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that connects to a namespace, for each of the three servers in turn."""
    with ExitStack() as stack:
        if request.param == "double":
            double = fakeredis.FakeServer()

            def connect(namespace: str) -> Store:
                client: Any = fakeredis.FakeRedis(server=double)
                return Store("redis://double", Keys(namespace), client=client)

        else:
            require(FLAVOURS[request.param])
            server = stack.enter_context(Server(FLAVOURS[request.param]))

            def connect(namespace: str) -> Store:
                return Store(server.url, Keys(namespace))

        yield connect


@pytest.fixture
def store(connect: Connect, namespace: str) -> Iterator[Store]:
    """Return a store with a new namespace; fail the test if keys without an owner are left behind."""
    store = connect(namespace)
    client: Any = store.client
    before = leaks.all_keys(client)
    yield store
    wrong = leaks.find(client, store.keys, before)
    left = leaks.all_keys(client) - before
    if left:
        client.delete(*left)
    store.close()
    assert not wrong, "left behind: " + "; ".join(wrong)


@pytest.fixture
def cluster(store: Store) -> StoreDriver:
    """Return a driver, for each of the three servers in turn."""
    return StoreDriver(store)
