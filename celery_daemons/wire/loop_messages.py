"""The messages between agent and host about stacks and blocked event loops."""

import msgspec

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.wire.inspection import Refusal, Stack


class AskStack(msgspec.Struct, tag=True):
    """Agent to host: answer where the code of a daemon is."""

    id: int
    name: DaemonName


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
