"""The spawn task that the monitor sends to a node, and the names of a node's queues."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from kombu.entity import Exchange, Queue

from celery_daemons.domain.names import Incarnation, NodeName
from celery_daemons.domain.runs import Assignment

TASK: Final = "celery_daemons.spawn"
#: Increase when the meaning of the payload changes. A node rejects an unknown version, and reads its assignments from
#: the address book at its next heartbeat instead.
VERSION: Final = 1
#: Seconds after which a broker that supports it deletes a spawn queue without a consumer.
_EXPIRES: Final = 3600
#: Characters that names of nodes and namespaces may contain, but queue names of some brokers may not.
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")
#: The longest text, in characters, that explains why a message was rejected.
_QUOTE: Final = 120


def task_queue_name(namespace: str, node: str) -> str:
    """Return the name of the node's own task queue."""
    return _FOREIGN.sub(_escaped, f"{namespace}.{node}")


def spawn_queue_name(namespace: str, node: str) -> str:
    """Return the name of the queue that carries the node's spawn tasks."""
    return f"{task_queue_name(namespace, node)}.spawn"


def task_queue(app: Any, name: str) -> Queue:
    """Return the node's task queue as Celery itself declares a queue of that name, whatever the app's queue settings.

    Every process must declare the queue alike: a broker refuses a declaration that differs from the first one.
    """
    queue: Queue = app.amqp.Queues((), create_missing=True)[name]
    return queue


def allow_task_queues(app: Any, namespace: Callable[[], str]) -> None:
    """Let tasks be sent to the queues of nodes by name, also in an app with ``task_create_missing_queues = False``."""

    class QueuesAndNodes(app.amqp.queues_cls):  # type: ignore[misc]
        """The app's queues. Queues of nodes are found, but not added: the app's workers must not consume these."""

        def __missing__(self, name: Any) -> Any:
            if not self.create_missing and str(name).startswith(task_queue_name(namespace(), "")):
                return task_queue(app, name)
            return super().__missing__(name)

    app.amqp.queues_cls = QueuesAndNodes


def _escaped(sign: re.Match[str]) -> str:
    return "_at_" if sign[0] == "@" else f"_{ord(sign[0]):02x}_"


def spawn_queue(name: str) -> Queue:
    """Return the spawn queue in the form that sender and receiver both declare."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name, durable=True, expires=_EXPIRES)


class NotASpawnTask(ValueError):
    """A message on the spawn queue is not a valid spawn task for this node; the text says why."""


class SpawnTask(msgspec.Struct, kw_only=True):
    """The keyword arguments of a spawn task: what changed in a node's assignments, and the resulting generation.

    A task with ``campaign`` assigns nothing. It says that no monitor leads and that the node may run for election.
    """

    node: NodeName
    incarnation: Incarnation
    epoch: int
    generation: int = 0
    assigned: list[Assignment] = []
    recalled: list[Assignment] = []
    campaign: bool = False

    def encode(self) -> dict[str, Any]:
        """Return the keyword arguments as plain data. Tokens are text: some JSON readers round large numbers."""
        return {
            "version": VERSION,
            "node": self.node,
            "incarnation": self.incarnation,
            "epoch": self.epoch,
            "generation": self.generation,
            "assigned": [(name, str(token)) for name, token in self.assigned],
            "recalled": [(name, str(token)) for name, token in self.recalled],
            "campaign": self.campaign,
        }

    @classmethod
    def decode(cls, message: Any, *, node: str) -> "SpawnTask":
        """Read a Kombu message. Raises :exc:`NotASpawnTask` and no other error, whatever the message contains."""
        try:
            headers = message.headers or {}
            name = headers.get("task") if isinstance(headers, dict) else None
            payload = message.decode() if name in (None, TASK) else None
            if name is None and isinstance(payload, dict):
                # Celery's task protocol 1 has everything in the body; see task_protocol.
                name, payload = payload.get("task"), (payload.get("args"), payload.get("kwargs"))
            if name != TASK or payload is None:
                raise NotASpawnTask(f"its task is {name!r:.80}, not {TASK}")
            given = dict(payload[1])
            version = given.pop("version", None)
            if version != VERSION:
                raise NotASpawnTask(f"its version is {version!r:.20}, this node reads version {VERSION}")
            for items in (given.get("assigned", ()), given.get("recalled", ())):
                _check_tokens(items)
            # Lax, because tokens are text on the wire.
            task = msgspec.convert(given, cls, strict=False)
        except NotASpawnTask:
            raise
        except Exception as error:
            raise NotASpawnTask(f"it cannot be read ({type(error).__name__}: {error})"[:_QUOTE]) from error
        if task.node != node:
            raise NotASpawnTask(f"it is for node {task.node!r:.80}")
        return task


def _check_tokens(items: Any) -> None:
    for name, token in items:
        if not isinstance(token, str) or not token.isascii() or not token.isdigit():
            raise NotASpawnTask(f"the token {token!r:.40} of daemon {name!r:.80} is not a number")
