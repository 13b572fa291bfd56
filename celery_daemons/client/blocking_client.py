"""The client of a cluster for code without an event loop: the coroutines of the client, over blocking I/O."""

from typing import Self

from celery_daemons.client.blocking import blocking
from celery_daemons.client.cluster_client import AsyncClusterClient
from celery_daemons.client.cluster_io import BlockingIO
from celery_daemons.client.lookups import Lookups
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys


class ClusterClient:
    """The calls of :class:`AsyncClusterClient`, each of which blocks until Redis has answered."""

    def __init__(self, store: Store, *, vnodes: int) -> None:
        self.store = store
        self.calls = AsyncClusterClient(BlockingIO(store), vnodes=vnodes)
        self.lookups = Lookups(self.calls.lookups)

    @classmethod
    def connect(cls, url: str, namespace: str, *, vnodes: int) -> Self:
        """Return a client of a namespace. Connects at the first call."""
        return cls(Store(url, Keys(namespace)), vnodes=vnodes)

    close = blocking(AsyncClusterClient.close)
    spawn = blocking(AsyncClusterClient.spawn)
    want = blocking(AsyncClusterClient.want)
    wait_running = blocking(AsyncClusterClient.wait_running)
    stop = blocking(AsyncClusterClient.stop)
    start = blocking(AsyncClusterClient.start)
    restart = blocking(AsyncClusterClient.restart)
    forget = blocking(AsyncClusterClient.forget)
    rescan = blocking(AsyncClusterClient.rescan)
    move = blocking(AsyncClusterClient.move)
    rebalance = blocking(AsyncClusterClient.rebalance)
    ask_rebalance = blocking(AsyncClusterClient.ask_rebalance)
    pause_rebalance = blocking(AsyncClusterClient.pause_rebalance)
    drain = blocking(AsyncClusterClient.drain)
    stranded = blocking(AsyncClusterClient.stranded)
    uncordon = blocking(AsyncClusterClient.uncordon)
