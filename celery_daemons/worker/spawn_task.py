"""Reading what comes in on the spawn queue, where anything may come in."""

from typing import Any

import msgspec

from celery_daemons.process.messages import Campaign, Spawned
from celery_daemons.process.spawn_task import TASK, VERSION

#: The most of a strange message that is quoted.
_QUOTE = 120


class NotASpawnTask(ValueError):
    """The message is none that this node understands; the text says why."""


class _Payload(msgspec.Struct):
    version: int
    node: str
    incarnation: str
    epoch: int
    generation: int
    assigned: list[tuple[str, str]]
    recalled: list[tuple[str, str]]
    campaign: bool = False


def decode(message: Any, *, node: str) -> Spawned | Campaign:
    """Read a spawn task; raises :exc:`NotASpawnTask`, and nothing else."""
    try:
        headers = message.headers or {}
        task = headers.get("task") if isinstance(headers, dict) else None
        if task != TASK:
            raise NotASpawnTask(f"its task is {task!r:.80}, not {TASK}")
        body = message.decode()
        payload = msgspec.convert(body[1], _Payload)
    except NotASpawnTask:
        raise
    except Exception as error:
        raise NotASpawnTask(f"it cannot be read ({type(error).__name__}: {error})"[:_QUOTE]) from error
    if payload.version != VERSION:
        raise NotASpawnTask(f"it is of version {payload.version}, this node speaks {VERSION}")
    if payload.node != node:
        raise NotASpawnTask(f"it is for node {payload.node!r:.80}")
    for name, token in (*payload.assigned, *payload.recalled):
        if not token.isascii() or not token.isdigit():
            raise NotASpawnTask(f"the token {token!r:.40} of daemon {name!r:.80} is no number")
    if payload.campaign:
        return Campaign()
    return Spawned(payload.incarnation, payload.generation, payload.assigned, payload.recalled)
