"""The messages between the processes of a node; MessagePack on the wire, nothing that executes code."""

from typing import Final

import msgspec

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import Assignment, End, StartItem
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.settings import Settings
from celery_daemons.wire.loop_messages import AskStack, LoopBlocked, LoopFree, StackAnswer, Stalled

#: Environment variable that carries the Preload message from the agent to its fork server: multiprocessing leaves no
#: other way to hand data to the modules that a fork server preloads.
PRELOAD_VARIABLE: Final = "CELERY_DAEMONS_PRELOAD"

#: Why a daemon was without a node: it is new, its launcher or arguments changed, its node was lost, its node left or
#: gave it up, a wave of rebalancing, or a person's request.
PLACEMENT_REASONS: Final = ("new", "replaced", "lost", "left", "rebalance", "moved")
#: Of these, the reasons for which it moves to another node.
MOVE_REASONS: Final = ("lost", "left", "rebalance", "moved")
#: Upper bounds in seconds of the buckets of the time without a node.
PLACEMENT_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
    #: Why the worker's timer does not show whether its loop runs, so that the worker sends no Tick; else empty.
    no_ticks: str = ""


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


class Tick(msgspec.Struct, tag=True):
    """Worker to agent: the worker's timer has ticked."""


class Consuming(msgspec.Struct, tag=True):
    """Worker to agent: the worker consumes, or has lost its broker; its timer may not tick until the broker is back."""

    on: bool


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


class CheckLoop(msgspec.Struct, tag=True):
    """Agent to host: answer with HostNumbers from the event loop, or without a loop from the receiving thread."""


class Leave(msgspec.Struct, tag=True):
    """Agent to shared host: no daemon is left and none will come; end the process."""


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


class HostNumbers(msgspec.Struct, tag=True):
    """Host to agent: the answer to CheckLoop, and what the host has measured since the last one.

    ``loop_lag`` is the number of seconds that the event loop took to answer, ``None`` without a loop.
    """

    loop_lag: float | None = None


class SteppedDown(msgspec.Struct, tag=True):
    """Monitor to agent: the monitor has given the lease back, so that another node can lead."""


class Progress(msgspec.Struct, tag=True):
    """Monitor to agent: the loop has completed an iteration."""


class ClusterTotals(msgspec.Struct):
    """What has happened since the monitor began: moves by reason, and nodes that were lost."""

    moves: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(MOVE_REASONS, 0))
    nodes_lost: int = 0
    mass_failures: int = 0


class ScanNumbers(msgspec.Struct, frozen=True):
    """The last scan of a launcher; ``succeeded_at`` is the Unix time of the last one without error, 0 for none."""

    seconds: float
    listed: int
    succeeded_at: float


class ClusterNumbers(msgspec.Struct, tag=True, kw_only=True):
    """Monitor to agent: the cluster in numbers.

    ``placement`` has, by reason, the counts of buckets with the bounds of :data:`PLACEMENT_BOUNDS` and the sum of the
    seconds. ``reconciled_at`` is Unix time. ``unhealthy`` names the first daemons that need attention.
    """

    statuses: list[tuple[LauncherName, DaemonStatus, int]]
    desired: dict[LauncherName, int]
    nodes: dict[str, int]
    node_daemons: dict[NodeName, int]
    lease_seconds: dict[NodeName, float]
    unhealthy: list[tuple[DaemonName, DaemonStatus]]
    rebalance_paused: bool
    totals: ClusterTotals
    placement: dict[str, tuple[list[int], float]]
    reconcile_seconds: float
    reconciled_at: float
    scans: dict[LauncherName, ScanNumbers]


FromWorker = AssignmentsChanged | Campaign | Rejected | Drain | NodeQueues | Tick | Consuming
ToHost = Lease | Start | Stop | Probe | CheckLoop | Leave | AskStack
FromHost = (
    Ready
    | LoadFailed
    | Started
    | Proven
    | Ended
    | Hung
    | Alive
    | HostNumbers
    | StackAnswer
    | Stalled
    | LoopBlocked
    | LoopFree
)
FromMonitor = Progress | ClusterNumbers | LoadFailed | SteppedDown
ToMonitor = Lease | HandOver
