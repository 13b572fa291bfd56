"""Decide what the probes answer: pure, from the loops of the node and from its place in the cluster."""

from collections.abc import Sequence
from typing import Final, Protocol

from celery_daemons.node.vitals import Vitals

#: The paths of the probes, as the reference lists them.
LIVEZ: Final = "/livez"
LIVEZ_WORKER: Final = "/livez/worker"
READYZ: Final = "/readyz"
STARTUPZ: Final = "/startupz"


class Readiness(Protocol):
    """Whether a process takes part in its cluster."""

    @property
    def started(self) -> bool:
        """Whether the process has taken part before."""

    def why_not(self) -> str:
        """Return why the process does not take part, or is about to leave; empty if it takes part."""


class ProbeAnswer:
    """The answer to a probe: ``reasons`` why it fails, none if it succeeds."""

    def __init__(self, reasons: Sequence[str], *, available: bool = True) -> None:
        self.reasons = reasons
        self.available = available

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        if not self.available:
            return 404
        return 503 if self.reasons else 200

    @property
    def text(self) -> str:
        """Return a line for each reason, or ``ok``."""
        return "".join(f"{reason}\n" for reason in self.reasons) or "ok\n"


class Probes:
    """Answers probes. Only ``/readyz`` and ``/startupz`` depend on Redis."""

    def __init__(self, *, vitals: Vitals, readiness: Readiness) -> None:
        self._vitals = vitals
        self._readiness = readiness

    def livez(self, now: float) -> ProbeAnswer:
        """Return whether the loops of agent, hosts and monitor respond; an agent that hangs does not answer."""
        return ProbeAnswer(self._vitals.hung_loops(now))

    def livez_worker(self, now: float) -> ProbeAnswer:
        """Return whether the loop of the worker responds."""
        if self._vitals.no_ticks:
            return ProbeAnswer([f"not available: {self._vitals.no_ticks}; probe {LIVEZ}"], available=False)
        hung = self._vitals.hung_worker(now)
        return ProbeAnswer([hung] if hung else [])

    def healthy(self, now: float) -> ProbeAnswer:
        """Return whether all loops respond, that of the worker included, as far as this can be known."""
        hung = self._vitals.hung_worker(now)
        return ProbeAnswer([*self._vitals.hung_loops(now), *([hung] if hung else [])])

    def readyz(self) -> ProbeAnswer:
        """Return whether the node has joined, its lease runs, and it does not drain."""
        why_not = self._readiness.why_not()
        return ProbeAnswer([why_not] if why_not else [])

    def startupz(self) -> ProbeAnswer:
        """Return whether the node has joined once."""
        return ProbeAnswer([] if self._readiness.started else [self._readiness.why_not() or "not started"])

    def answer(self, path: str, now: float) -> ProbeAnswer | None:
        """Return the answer to a probe; ``None`` if the path is not that of a probe."""
        match path:
            case "/livez":
                return self.livez(now)
            case "/livez/worker":
                return self.livez_worker(now)
            case "/readyz":
                return self.readyz()
            case "/startupz":
                return self.startupz()
        return None
