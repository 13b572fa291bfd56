"""One daemon on this node, from its assignment to its release."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.restart import RestartHistory
from celery_daemons.domain.runs import End, Running
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.node.host_pool import Host


class State(Enum):
    """Where a life is, seen from the agent."""

    CLAIMING = "claiming"  #: assigned; Redis has yet to confirm that it may start
    STARTING = "starting"  #: given to a host
    RUNNING = "running"
    STOPPING = "stopping"  #: asked to stop; its host is killed if it does not
    WAITING = "waiting"  #: ended; claimed again after its back-off


class Afterwards(Enum):
    """What happens to a life that was asked to stop, once it has."""

    RELEASE = "release"
    RESTART = "restart"
    POLICY = "policy"  #: what its restart policy says of how it ended
    DROP = "drop"  #: it is no longer this node's: nothing to give back


@dataclass(slots=True)
class Life:
    """A daemon that is assigned to this node."""

    name: DaemonName
    token: Token
    state: State = State.CLAIMING
    launcher: str = ""
    arguments: str = ""
    version: str = ""
    restarts: int = 0
    host: Host | None = None
    since: float = 0.0
    end: End | None = None
    #: Why the life before this one ended, and where in its code.
    error: str | None = None
    trace: str | None = None
    #: A newer token that the book has for this node: it counts once what runs has ended.
    newer: Token | None = None
    unwanted: bool = False
    afterwards: Afterwards = Afterwards.RELEASE
    history: RestartHistory | None = None


_STATUS = {State.RUNNING: DaemonStatus.RUNNING, State.STARTING: DaemonStatus.STARTING}


def running(lives: Iterable[Life]) -> list[Running]:
    """What Redis has to be told again after it lost its data: every life that it once confirmed."""
    return [
        Running(
            name=life.name,
            token=life.token,
            launcher=LauncherName(life.launcher),
            arguments=life.arguments,
            version=life.version,
            status=_STATUS.get(life.state, DaemonStatus.BACKOFF),
            pid=life.host.pid if life.host else 0,
            restarts=life.restarts,
        )
        for life in lives
        if life.launcher
    ]
