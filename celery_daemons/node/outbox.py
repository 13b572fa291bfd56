"""What the agent has to send to Redis: claims, reports and releases, in batches, until Redis has taken them.

No I/O: :meth:`Outbox.next_request` says what to send, and :meth:`Outbox.answered` takes the reply. Releases go first,
then reports, then claims; one request at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from celery_daemons.domain.names import DaemonName, Incarnation, NodeName, Token
from celery_daemons.domain.runs import Assignment, ClaimResult, Release, Report
from celery_daemons.node.supervision.commands import SendClaims, SendReleases, SendReports
from celery_daemons.store import book
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH, ScriptCall

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A call with a batch; ``generation`` is that of the outbox when the call was made."""

    call: ScriptCall[Any]
    batch: Mapping[Any, Any]
    generation: int


@dataclass(frozen=True, slots=True)
class ClaimsAnswered:
    """Redis has granted or refused claims, with a result per item."""

    items: list[Assignment]
    results: list[ClaimResult]


@dataclass(frozen=True, slots=True)
class ReportsRefused:
    """Redis has a newer token for a daemon that was reported: Redis and this node disagree."""


@dataclass(frozen=True, slots=True)
class ServerUnconfirmed:
    """No claim can be granted yet: the monitor has not confirmed this Redis server."""


Reply = ClaimsAnswered | ReportsRefused | ServerUnconfirmed


class Outbox:
    """Holds what Redis has not taken yet."""

    def __init__(self, *, keys: Keys, node: NodeName) -> None:
        self._keys = keys
        self._node = node
        self._claims: dict[DaemonName, Token] = {}
        self._reports: dict[DaemonName, Report] = {}
        self._releases: dict[tuple[DaemonName, Token], Release] = {}
        self._in_flight: Request | None = None
        #: Replies to requests of an earlier generation no longer count.
        self.generation = 0

    @property
    def idle(self) -> bool:
        """Whether Redis has taken everything."""
        return not (self._claims or self._reports or self._releases or self._in_flight)

    # Filling

    def put(self, command: SendClaims | SendReports | SendReleases) -> None:
        """Add what the supervisor wants sent."""
        match command:
            case SendClaims(items):
                self._claims.update(items)
            case SendReports(reports):
                for report in reports:
                    self._reports[report.name] = report
            case SendReleases(releases):
                for release in releases:
                    self.discard(release.name)
                    # Only the first release of a token says how the run ended.
                    self._releases.setdefault((release.name, release.token), release)

    def withdraw(self, name: DaemonName) -> bool:
        """Cancel a pending claim. Return False if the claim is already in flight and may still be granted."""
        if self._in_flight is not None and self._in_flight.call.verb == "claim" and name in self._in_flight.batch:
            return False
        self._claims.pop(name, None)
        return True

    def discard(self, name: DaemonName) -> None:
        """Send neither claim nor report of a daemon."""
        self._claims.pop(name, None)
        self._reports.pop(name, None)

    def clear(self) -> None:
        """Discard everything pending; called when the incarnation ends."""
        self.void_replies()
        self._claims.clear()
        self._reports.clear()
        self._releases.clear()

    def void_replies(self) -> None:
        """Ignore the reply to the request in flight, from a server that lost data, and send the request again."""
        self.generation += 1

    # Sending

    def next_request(self, *, incarnation: Incarnation | None, server: str | None) -> Request | None:
        """Return what to send now; ``None`` if nothing may be sent.

        ``incarnation`` is ``None`` unless the node's lease runs: without it, only releases may be sent. ``server`` is
        the run id of the Redis server whose claims may be granted; ``None`` during the grace period after a change.
        """
        if self._releases:
            releases = _first(self._releases)
            call: ScriptCall[Any] = book.release(self._keys, self._node, list(releases.values()))
            return self._sending(call, releases)
        if incarnation is None:
            return None
        if self._reports:
            reports = _first(self._reports)
            return self._sending(book.report(self._keys, self._node, incarnation, list(reports.values())), reports)
        if self._claims and server is not None:
            claims = _first(self._claims)
            items = [Assignment(name, token) for name, token in claims.items()]
            return self._sending(book.claim(self._keys, self._node, incarnation, items, server=server), claims)
        return None

    def answered(self, request: Request, reply: Any) -> Reply | None:
        """Take the reply to a request, and return what the agent has to know."""
        self._in_flight = None
        current = request.generation == self.generation
        match request.call.verb:
            case "release":
                if current:
                    _remove(self._releases, request.batch)
            case "report":
                if current:
                    _remove(self._reports, request.batch)
                return None if all(reply) else ReportsRefused()
            case "claim" if reply is None:
                return ServerUnconfirmed()
            case "claim" if current:
                # Redis may answer only the first claims of a batch, if the arguments of more are too large.
                answered = dict(islice(request.batch.items(), len(reply)))
                _remove(self._claims, answered)
                return ClaimsAnswered([Assignment(name, token) for name, token in answered.items()], reply)
        return None

    def failed(self, request: Request) -> None:
        """Note that a request was not answered, so that the request is sent again."""
        assert request is self._in_flight
        self._in_flight = None

    def _sending(self, call: ScriptCall[Any], batch: Mapping[Any, Any]) -> Request:
        self._in_flight = Request(call, batch, self.generation)
        return self._in_flight


def _first(pending: dict[K, V]) -> dict[K, V]:
    """Return the oldest entries, as many as a call takes."""
    return dict(islice(pending.items(), BATCH))


def _remove(pending: dict[K, V], sent: Mapping[K, V]) -> None:
    """Remove what was sent; what has changed since is still pending."""
    for key, value in sent.items():
        now = pending.get(key)
        if now is value or now == value:
            pending.pop(key, None)
