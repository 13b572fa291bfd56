"""Connecting to a real server with each form of URL."""

import asyncio
from pathlib import Path

import pytest

from celery_daemons.store import queries
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.keys import Keys
from tests.conftest import NewServer
from tests.store.driver import lookups_of

KEYS = Keys("test")


@pytest.mark.parametrize("kind", ["unix://", "redis+socket://"])
def test_a_server_on_a_unix_socket_is_reached(kind: str, new_server: NewServer, tmp_path: Path) -> None:
    # Given
    file = tmp_path / "server.sock"
    new_server(f"unixsocket {file}")
    url = f"{kind}{file}"

    async def ask() -> object:
        store = AsyncStore(url, KEYS, timeout=5.0)
        await store.check()
        result = await store.run(queries.overview(KEYS))
        await store.close()
        return result.leases

    # When / Then
    assert Store(url, KEYS).run(queries.overview(KEYS)).leases == {}
    assert asyncio.run(ask()) == {}


def test_a_url_that_asks_for_text_does_not_change_replies(new_server: NewServer) -> None:
    store = Store(new_server().url + "?decode_responses=true", KEYS)

    store.client.hset(KEYS.cluster, "layout", "1")

    store.check()
    assert lookups_of(store).nodes() == []
