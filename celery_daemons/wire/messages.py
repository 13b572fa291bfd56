"""The messages between the processes of a node; MessagePack on the wire, nothing that executes code."""

from typing import Final

import msgspec

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import Assignment, End, StartItem
from celery_daemons.settings import Settings
from celery_daemons.wire.inspection import Refusal, Stack

#: Environment variable that carries the Preload message from the agent to its fork server: multiprocessing leaves no
#: other way to hand data to the modules that a fork server preloads.
PRELOAD_VARIABLE: Final = "CELERY_DAEMONS_PRELOAD"


class Boot(msgspec.Struct, kw_only=True):
    """Worker to a new agent: the configuration, sent on standard input so that ``ps`` shows no secret."""

    node: str
    app: str
    settings: Settings
    sys_path: list[str]
    queue: str
    spawn_queue: str
    host: str
    worker_pid: int
    launchers: dict[LauncherName, LauncherOptions]
    scanners: list[LauncherName] = []
    tempdir: str = ""
    previous: str | None = None
    hosting: bool = True
    loglevel: int = 20
    logfile: str | None = None
    python_path: str | None = None


class HostBoot(msgspec.Struct, kw_only=True, tag=True):
    """Agent to host, first message; ``until`` is the end of the node's lease on the lease clock, less the margin.

    ``log_ring`` is the file for the last log lines of the host's daemons; empty for none.
    """

    node: str
    settings: Settings
    title: str
    isolated: bool
    log_ring: str = ""
    until: float = 0.0


class Testimony(msgspec.Struct, kw_only=True, frozen=True):
    """What an agent saw of the cluster before starting a monitor; times are on the lease clock.

    ``clock`` are the segments of a ServerClock. ``known_since`` is when the present server with its present data first
    answered. ``longest_lease`` is the longest lease that may run, in seconds.
    """

    clock: list[tuple[float, float, float, float]]
    known_since: float
    longest_lease: float


class MonitorBoot(msgspec.Struct, kw_only=True, tag=True):
    """Agent to monitor, first message; ``until`` is the end of the lease on the lease clock, less the margin."""

    node: str
    settings: Settings
    title: str
    epoch: int
    testimony: Testimony
    until: float = 0.0


class Preload(msgspec.Struct, kw_only=True):
    """Agent to fork server: the app to load before the first fork, and how the fork server logs."""

    node: str
    app: str
    sys_path: list[str]
    loglevel: int
    logfile: str | None
    python_path: str | None


ChildBoot = HostBoot | MonitorBoot


class AssignmentsChanged(msgspec.Struct, tag=True):
    """Worker to agent: a spawn task arrived."""

    incarnation: Incarnation
    generation: int
    assigned: list[Assignment]
    recalled: list[Assignment]


class Campaign(msgspec.Struct, tag=True):
    """Worker to agent: the monitor has resigned; run for election now, not at the next heartbeat."""


class Rejected(msgspec.Struct, tag=True):
    """Worker to agent: messages on the spawn queue were not valid spawn tasks."""

    count: int
    reason: str


class Drain(msgspec.Struct, tag=True):
    """Worker to agent: the worker is shutting down; release all daemons within ``timeout`` seconds.

    A second message shortens the time that the first one gave.
    """

    timeout: float


class NodeQueues(msgspec.Struct, tag=True):
    """Worker to agent: the queues that the worker consumes for this node; empty where the broker allows no queue."""

    queue: str
    spawn_queue: str


class JoinedAs(msgspec.Struct, tag=True):
    """Agent to worker: the node's incarnation; the next agent of the worker reports this incarnation as dead."""

    incarnation: str


class Lease(msgspec.Struct, tag=True):
    """Agent to host or monitor: the lease was renewed until ``until`` on the lease clock."""

    until: float


class HandOver(msgspec.Struct, tag=True):
    """Agent to monitor: the lease was given back; notify other nodes and exit."""


class Start(msgspec.Struct, tag=True):
    """Agent to host: start these daemons."""

    items: list[StartItem]


class Stop(msgspec.Struct, tag=True):
    """Agent to host: stop these daemons, and report the end of each."""

    names: list[DaemonName]


class Probe(msgspec.Struct, tag=True):
    """Agent to host: answer from the event loop, to show that the loop is not blocked."""


class Leave(msgspec.Struct, tag=True):
    """Agent to shared host: no daemon is left and none will come; end the process."""


class AskStack(msgspec.Struct, tag=True):
    """Agent to host: answer where the code of a daemon is."""

    id: int
    name: DaemonName


class Ready(msgspec.Struct, tag=True):
    """Host to agent: the app is loaded, and the host can start daemons."""

    pid: int


class LoadFailed(msgspec.Struct, tag=True):
    """Host or monitor to agent: loading the app failed, and why."""

    error: str


class Started(msgspec.Struct, tag=True):
    """Host to agent: these daemons have started."""

    items: list[tuple[DaemonName, Token]]


class Proven(msgspec.Struct, tag=True):
    """Host to agent: these daemons have called ``ctx.ready()``."""

    items: list[tuple[DaemonName, Token]]


class Ended(msgspec.Struct, tag=True):
    """Host to agent: these daemons have ended."""

    items: list[End]


class Hung(msgspec.Struct, tag=True):
    """Host to agent: these daemons have not called ``ctx.beat()`` within the progress deadline."""

    items: list[tuple[DaemonName, Token]]


class Alive(msgspec.Struct, tag=True):
    """Host to agent: the answer to a probe; the event loop is not blocked."""


class StackAnswer(msgspec.Struct, tag=True):
    """Host to agent: the answer to a question."""

    id: int
    answer: Stack | Refusal


class Stalled(msgspec.Struct, tag=True):
    """Host to agent: these daemons have blocked the event loop, each for so many seconds.

    The name is empty for code outside of daemons.
    """

    items: list[tuple[DaemonName, Token, float]]


class LoopBlocked(msgspec.Struct, tag=True):
    """Host to agent: a daemon has blocked the event loop for ``seconds`` and still does."""

    name: DaemonName
    token: Token
    seconds: float


class LoopFree(msgspec.Struct, tag=True):
    """Host to agent: the event loop is no longer blocked."""


class SteppedDown(msgspec.Struct, tag=True):
    """Monitor to agent: the monitor has given the lease back, so that another node can lead."""


class Progress(msgspec.Struct, tag=True):
    """Monitor to agent: the loop has completed a turn."""


FromWorker = AssignmentsChanged | Campaign | Rejected | Drain | NodeQueues
ToHost = Lease | Start | Stop | Probe | Leave | AskStack
FromHost = Ready | LoadFailed | Started | Proven | Ended | Hung | Alive | StackAnswer | Stalled | LoopBlocked | LoopFree
FromMonitor = Progress | LoadFailed | SteppedDown
ToMonitor = Lease | HandOver
