"""One daemon on this node, from its assignment to its release, and one host process as the supervisor knows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.restart import RestartHistory
from celery_daemons.domain.runs import End, StartItem
from celery_daemons.node.supervision.commands import HostId


class State(Enum):
    """The state of a daemon, seen from the agent."""

    CLAIMING = "claiming"  #: assigned; Redis has yet to confirm that it may start
    STARTING = "starting"  #: given to a host
    RUNNING = "running"
    STOPPING = "stopping"  #: asked to stop; its host is killed if it does not
    WAITING = "waiting"  #: its run has ended; claimed again after its back-off


class AfterStop(Enum):
    """What follows once a daemon that was asked to stop has stopped."""

    RELEASE = "release"  #: give it back
    RESTART = "restart"  #: start it again on this node
    POLICY = "policy"  #: apply its restart policy, as if it had ended by itself
    DROP = "drop"  #: forget it: this node no longer has it, and has nothing to give back


@dataclass(slots=True, eq=False)
class LocalHost:
    """A host process that has been asked for and has not died."""

    id: HostId
    isolated: bool
    opened_at: float
    pid: int = 0
    #: The host has loaded the app and takes daemons.
    ready: bool = False
    #: Daemons that were given to the host and have not ended.
    names: set[DaemonName] = field(default_factory=set)
    #: Of these, the ones that did not stop within their grace period.
    overdue: set[DaemonName] = field(default_factory=set)
    #: Daemons to start once the host is ready.
    queued: list[StartItem] = field(default_factory=list)
    #: The host gets no further daemons, and is killed once only overdue daemons are left.
    retiring: bool = False
    #: The host only shows whether a process can be started, and takes no daemon.
    trial: bool = False
    #: The event loop of the host has answered the last probe.
    answered: bool = False
    #: Since when the event loop is blocked, and by which daemon; the host gets no other daemons meanwhile.
    blocked_since: float | None = None
    blocked_by: str = ""


@dataclass(slots=True, eq=False)
class LocalDaemon:
    """A daemon that is assigned to this node; a *run* lasts from a start of the daemon to the end."""

    name: DaemonName
    token: Token
    #: Grows with each assignment to this node.
    serial: int
    state: State = State.CLAIMING
    #: What Redis said when it granted the first claim; empty before.
    launcher: LauncherName = LauncherName("")  # noqa: RUF009 - a NewType of str, which does not change
    arguments: str = ""
    version: str = ""
    restarts: int = 0
    host: LocalHost | None = None
    started_at: float = 0.0
    #: When the daemon was asked to stop.
    stopping_since: float = 0.0
    #: How the present run ended; known only after its end.
    end: End | None = None
    #: Why the previous run ended, and where in the daemon's code.
    error: str | None = None
    trace: str | None = None
    #: A newer token that the book has for this node: it counts once the present run has ended.
    newer_token: Token | None = None
    #: The claim may be on its way: give the daemon back if it is granted.
    release_on_claim: bool = False
    after_stop: AfterStop = AfterStop.RELEASE
    history: RestartHistory | None = None
    #: When the daemon has recently blocked the event loop of its host, and whether it was moved to a separate process
    #: for that.
    stalled_at: Sequence[float] = ()
    alone: bool = False
