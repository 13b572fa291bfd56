"""Fenced writes: keys of the user that refuse writes of an older start of a daemon."""

import inspect
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Literal

from redis.exceptions import NoScriptError

from celery_daemons.errors import ClaimLost
from celery_daemons.store.script import script

#: The most fields of one stream entry: Lua cannot pass more arguments to a command, and an entry cannot be cut.
_MAX_STREAM_FIELDS: Final = 1999
#: A key with a hash tag by the rule of Redis Cluster: not empty, and opened by the first brace.
_TAGGED: Final = re.compile(r"[^{]*\{[^}]+\}")


class FencedRedis:
    """Write to keys of the user under the token of a daemon.

    After a write under a newer token, a write under an older token raises :exc:`ClaimLost` and changes nothing. The
    newest token of a key is in ``{key}:fence``, in the same hash slot. With an async client, every call is awaitable.
    See Kleppmann, "How to do distributed locking" (2016): a lease alone does not give mutual exclusion; the resource
    has to check a token.

    Every write is atomic, however long. A write that the server refuses, for example because it is out of memory,
    raises the client's error and changes nothing.
    """

    def __init__(self, client: Any, *, name: str, token: int) -> None:
        self._client = client
        self._name = name
        self._token = token

    def set(self, key: str, value: Any) -> Any:
        """Run SET."""
        return self._write(key, "SET", value)

    def delete(self, key: str) -> Any:
        """Run DEL; the fence stays."""
        return self._write(key, "DEL")

    def incrby(self, key: str, amount: int = 1) -> Any:
        """Run INCRBY."""
        return self._write(key, "INCRBY", amount)

    def hset(self, key: str, mapping: Mapping[str, Any]) -> Any:
        """Run HSET with the fields of ``mapping``."""
        return self._write(key, "HSET", *(part for pair in mapping.items() for part in pair))

    def hdel(self, key: str, *fields: str) -> Any:
        """Run HDEL."""
        return self._write(key, "HDEL", *fields)

    def rpush(self, key: str, *values: Any) -> Any:
        """Run RPUSH."""
        return self._write(key, "RPUSH", *values, reply="last")

    def sadd(self, key: str, *members: Any) -> Any:
        """Run SADD."""
        return self._write(key, "SADD", *members)

    def zadd(self, key: str, mapping: Mapping[Any, float]) -> Any:
        """Run ZADD; ``mapping`` has a score for each member."""
        return self._write(key, "ZADD", *(part for member, score in mapping.items() for part in (score, member)))

    def xadd(self, key: str, fields: Mapping[str, Any]) -> Any:
        """Run XADD with an id that the server generates; an entry has at most 1,999 fields. Raises ValueError."""
        if len(fields) > _MAX_STREAM_FIELDS:
            raise ValueError(
                f"daemon {self._name}: an entry of {len(fields):,} fields for the stream {key} is longer than the "
                f"{_MAX_STREAM_FIELDS:,} fields that a fenced write takes; split the entry"
            )
        return self._write(key, "XADD", "*", *(part for pair in fields.items() for part in pair))

    def _write(self, key: str, command: str, *arguments: Any, reply: Literal["sum", "last"] = "sum") -> Any:
        verb = script("fenced")
        # The fence needs the slot of the key. A key without a hash tag becomes the tag itself.
        fence = f"{key}:fence" if _TAGGED.match(key) else f"{{{key}}}:fence"
        words = (2, key, fence, self._token, command, reply, *arguments)
        try:
            answer = self._client.evalsha(verb.sha, *words)
            if inspect.isawaitable(answer):
                return self._awaited(answer, key, verb.source, words)
        except NoScriptError:
            answer = self._client.eval(verb.source, *words)
        return self._allowed(answer, key)

    async def _awaited(self, pending: Awaitable[Any], key: str, source: str, words: tuple[Any, ...]) -> Any:
        try:
            reply = await pending
        except NoScriptError:
            reply = await self._client.eval(source, *words)
        return self._allowed(reply, key)

    def _allowed(self, reply: Any, key: str) -> Any:
        allowed, answer = reply
        if int(allowed) == 1:
            return answer
        newest = answer.decode() if isinstance(answer, bytes) else answer
        raise ClaimLost(
            f"daemon {self._name}: token {self._token} may no longer write to {key}, token {newest} has: "
            "a newer start of this daemon is running, so end this one"
        )
