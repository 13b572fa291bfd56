"""Sending the outbox: the loop that carries its requests to Redis."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.errors import LeaseLost, StoreUnavailable
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.outbox import Outbox, Reply, ServerUnconfirmed
from celery_daemons.store.connection import AsyncStore

logger = logging.getLogger(__name__)

#: Seconds before another attempt when Redis did not answer; the heartbeat keeps track of the lease meanwhile.
_RETRY: Final = 0.2


class OutboxSender:
    """Sends pending claims, reports and releases as soon as the lease permits."""

    def __init__(
        self, *, store: AsyncStore, node: NodeName, lease: NodeLease, outbox: Outbox, measurements: Measurements
    ) -> None:
        self._store = store
        self._node = node
        self._lease = lease
        self._outbox = outbox
        self._measurements = measurements
        self._woken = asyncio.Event()
        self._reported_unconfirmed = False

    def wake(self) -> None:
        """Check now what is pending."""
        self._woken.set()

    async def run(self, on_reply: Callable[[Reply], None]) -> None:
        """Send forever; ``on_reply`` gets what the agent has to know of a reply."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                while await self._send_one(on_reply):
                    pass
            except StoreUnavailable as error:
                logger.debug("node %s: %s", self._node, error)
                await asyncio.sleep(_RETRY)
                self._woken.set()
            except LeaseLost as error:
                # The heartbeat finds out too, and acts. Until then no request here can succeed.
                logger.info("%s", error)
                await asyncio.sleep(_RETRY)

    async def _send_one(self, on_reply: Callable[[Reply], None]) -> bool:
        """Send a request; return False if nothing can be sent before the next :meth:`wake`."""
        incarnation = self._lease.incarnation if self._lease.is_running() else None
        request = self._outbox.next_request(incarnation=incarnation, server=self._lease.confirmed_server())
        if request is None:
            return False
        try:
            answer = await self._store.run(request.call)
        except BaseException as error:
            self._measurements.fenced[request.call.verb] += isinstance(error, LeaseLost)
            self._outbox.failed(request)
            raise
        reply = self._outbox.answered(request, answer)
        if isinstance(reply, ServerUnconfirmed):
            if not self._reported_unconfirmed:
                logger.info(
                    "node %s: waiting for the monitor to confirm this Redis server before starting daemons", self._node
                )
            self._reported_unconfirmed = True
            return False
        if request.call.verb == "claim":
            self._reported_unconfirmed = False
        if reply is not None:
            on_reply(reply)
        return True
