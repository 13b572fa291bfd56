"""Send an agent's outbox, with the fate of each request and its answer."""

from functools import partial
from typing import TYPE_CHECKING, Any

from celery_daemons.errors import Fenced
from celery_daemons.node.outbox import ClaimsAnswered, Outbox, Request
from tests.unit.protocol import audits
from tests.unit.protocol.world import Audit, Fate, Flight, World

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent


class Sender:
    """Sends the requests of one agent's outbox, one at a time."""

    def __init__(self, world: World, agent: "ModelAgent", outbox: Outbox) -> None:
        self._world = world
        self._agent = agent
        self._outbox = outbox
        self._request: Request | None = None

    def flush(self, fate: Fate = "prompt") -> None:
        """Send what is pending: one request with this fate, and then as many as are answered promptly."""
        while self.send_one(fate) and fate == "prompt":
            pass

    def send_one(self, fate: Fate) -> bool:
        """Send one request; False if none may be sent, or if the monitor has to confirm the server."""
        agent = self._agent
        if not agent.alive or agent.paused or not agent.connected or self._request is not None:
            return False
        request = self._outbox.next_request(incarnation=agent.claimant, server=agent.confirmed_server)
        if request is None:
            return False
        audit = self._audit_of(request)
        if fate == "late":
            self._outbox.failed(request)
            self._world.flights.append(Flight(agent, partial(self._world.carry_out, request.call, audit)))
            return True
        answer = self._world.carry_out(request.call, audit)
        if fate == "lost":
            self._outbox.failed(request)
            return True
        self._request = request
        if fate == "slow":
            self._world.flights.append(Flight(agent, partial(self._answered, request, answer)))
            return True
        return self._answered(request, answer)

    def lose_connection(self) -> None:
        """Lose the connection to a server that is gone: no answer arrives on it."""
        if self._request is not None:
            self._outbox.failed(self._request)
            self._request = None

    def _answered(self, request: Request, answer: Any) -> bool:
        if not self._agent.alive or self._request is not request:
            return False
        self._request = None
        if isinstance(answer, Fenced):
            self._outbox.failed(request)
            return False
        reply = self._outbox.answered(request, answer)
        if isinstance(reply, ClaimsAnswered):
            self._agent.claimed(reply)
        return reply is None or isinstance(reply, ClaimsAnswered)

    def _audit_of(self, request: Request) -> Audit:
        match request.call.verb:
            case "claim":
                return audits.of_claim(self._world, self._agent, list(request.batch.items()))
            case "report":
                return audits.of_report(self._agent, list(request.batch.values()))
            case _:
                return audits.of_release(self._agent, list(request.batch.values()))
