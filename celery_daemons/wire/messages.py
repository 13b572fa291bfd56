"""The messages between the processes of a node; MessagePack on the wire, nothing that executes code."""

from typing import Any

import msgspec

from celery_daemons.domain.names import DaemonName, Incarnation, Token
from celery_daemons.domain.runs import Assignment, End, StartItem


class Boot(msgspec.Struct, kw_only=True):
    """Worker to a new agent: the configuration, sent on standard input so that ``ps`` shows no secret."""

    node: str
    app: str
    settings: dict[str, Any]
    sys_path: list[str]
    queue: str
    spawn_queue: str
    host: str
    worker_pid: int
    launchers: dict[str, dict[str, Any]]
    tempdir: str = ""
    previous: str | None = None
    hosting: bool = True
    loglevel: int = 20
    logfile: str | None = None


class ChildBoot(msgspec.Struct, kw_only=True):
    """Agent to a new host or monitor: the configuration.

    ``until`` is the end of the lease on the lease clock, minus the margin.
    """

    node: str
    app: str
    settings: dict[str, Any]
    title: str
    until: float = 0.0
    epoch: int = 0
    incarnation: str = ""
    isolated: bool = False


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
    """Worker to agent: the worker is shutting down; release all daemons within ``timeout`` seconds."""

    timeout: float


class Joined(msgspec.Struct, tag=True):
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

    names: list[str]


class Probe(msgspec.Struct, tag=True):
    """Agent to host: answer from the event loop, to show that the loop is not blocked."""


class Ready(msgspec.Struct, tag=True):
    """Host to agent: the app is loaded, and the host can start daemons."""

    pid: int


class LoadFailed(msgspec.Struct, tag=True):
    """Host or monitor to agent: loading the app failed, and why."""

    error: str


class Started(msgspec.Struct, tag=True):
    """Host to agent: these daemons have started."""

    items: list[tuple[DaemonName, Token]]


class Ended(msgspec.Struct, tag=True):
    """Host to agent: these daemons have ended."""

    items: list[End]


class Hung(msgspec.Struct, tag=True):
    """Host to agent: these daemons have not called ``ctx.beat()`` within the progress deadline."""

    items: list[tuple[DaemonName, Token]]


class Alive(msgspec.Struct, tag=True):
    """Host to agent: the answer to a probe; the event loop is not blocked."""


class SteppedDown(msgspec.Struct, tag=True):
    """Monitor to agent: the monitor has given the lease back, so that another node can lead."""


class Progress(msgspec.Struct, tag=True):
    """Monitor to agent: the loop has completed a turn."""


FromWorker = AssignmentsChanged | Campaign | Rejected | Drain
ToHost = Lease | Start | Stop | Probe
FromHost = Ready | LoadFailed | Started | Ended | Hung | Alive
FromMonitor = Progress | LoadFailed | SteppedDown
ToMonitor = Lease | HandOver
