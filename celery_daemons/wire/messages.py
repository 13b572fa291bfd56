"""What the processes of a node tell each other; MessagePack on the wire, nothing that executes."""

from typing import Final

import msgspec

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.runs import Assignment, End, StartItem
from celery_daemons.settings import Settings

#: Environment variable that carries the Preload message from the agent to its fork server: multiprocessing leaves no
#: other way to hand data to the modules that a fork server preloads.
PRELOAD_VARIABLE: Final = "CELERY_DAEMONS_PRELOAD"


class Boot(msgspec.Struct, kw_only=True):
    """All that an agent needs to know; it comes on standard input, so that ``ps`` shows no secret."""

    node: str
    app: str
    settings: Settings
    sys_path: list[str]
    queue: str
    spawn_queue: str
    host: str
    worker_pid: int
    launchers: dict[LauncherName, LauncherOptions]
    tempdir: str = ""
    previous: str | None = None
    hosting: bool = True
    loglevel: int = 20
    logfile: str | None = None


class HostBoot(msgspec.Struct, kw_only=True, tag=True):
    """Agent to host, first message; ``until`` is the end of the node's lease on the lease clock, less the margin."""

    node: str
    settings: Settings
    title: str
    isolated: bool
    until: float = 0.0


class MonitorBoot(msgspec.Struct, kw_only=True, tag=True):
    """Agent to monitor, first message; ``until`` is the end of its lease on the lease clock, less the margin."""

    node: str
    settings: Settings
    title: str
    epoch: int
    until: float = 0.0


class Preload(msgspec.Struct, kw_only=True):
    """Agent to fork server: the app to load before the first fork, and how the fork server logs."""

    node: str
    app: str
    sys_path: list[str]
    loglevel: int
    logfile: str | None


ChildBoot = HostBoot | MonitorBoot


class AssignmentsChanged(msgspec.Struct, tag=True):
    """Worker to agent: a spawn task came in."""

    incarnation: Incarnation
    generation: int
    assigned: list[Assignment]
    recalled: list[Assignment]


class Campaign(msgspec.Struct, tag=True):
    """Worker to agent: the monitor has resigned; run for election now rather than at the next heartbeat."""


class Rejected(msgspec.Struct, tag=True):
    """Worker to agent: messages on the spawn queue that were no spawn tasks."""

    count: int
    reason: str


class Drain(msgspec.Struct, tag=True):
    """Worker to agent: the worker shuts down; hand everything over within ``timeout`` seconds."""

    timeout: float


class Joined(msgspec.Struct, tag=True):
    """Agent to worker: the node's incarnation, which the next agent has to name as dead."""

    incarnation: str


class Lease(msgspec.Struct, tag=True):
    """Agent to host or monitor: the lease was renewed and holds until ``until``."""

    until: float


class HandOver(msgspec.Struct, tag=True):
    """Agent to monitor: the lease has been given back; tell other nodes, and end."""


class Start(msgspec.Struct, tag=True):
    """Agent to host: start these."""

    items: list[StartItem]


class Stop(msgspec.Struct, tag=True):
    """Agent to host: stop these; each reports its end."""

    names: list[DaemonName]


class Probe(msgspec.Struct, tag=True):
    """Agent to host: answer from the event loop, if it turns."""


class Ready(msgspec.Struct, tag=True):
    """Host to agent: the app is loaded, daemons may come."""

    pid: int


class LoadFailed(msgspec.Struct, tag=True):
    """Host or monitor to agent: the app cannot be loaded, and why."""

    error: str


class Started(msgspec.Struct, tag=True):
    """Host to agent: these run."""

    items: list[tuple[DaemonName, Token]]


class Ended(msgspec.Struct, tag=True):
    """Host to agent: these run no more."""

    items: list[End]


class Hung(msgspec.Struct, tag=True):
    """Host to agent: these called ``ctx.beat()`` no more for longer than their progress deadline."""

    items: list[tuple[DaemonName, Token]]


class Alive(msgspec.Struct, tag=True):
    """Host to agent: the event loop turns."""


class SteppedDown(msgspec.Struct, tag=True):
    """Monitor to agent: it has given the lease back, for another node to lead."""


class Progress(msgspec.Struct, tag=True):
    """Monitor to agent: the loop has turned."""


FromWorker = AssignmentsChanged | Campaign | Rejected | Drain
ToHost = Lease | Start | Stop | Probe
FromHost = Ready | LoadFailed | Started | Ended | Hung | Alive
FromMonitor = Progress | LoadFailed | SteppedDown
ToMonitor = Lease | HandOver
