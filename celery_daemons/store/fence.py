"""Fenced writes: the resource itself refuses what an older start of a daemon still tries to write."""

import inspect
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from redis.exceptions import NoScriptError

from celery_daemons.errors import ClaimLost
from celery_daemons.store.script import script

#: What Redis Cluster takes for a hash tag: the first brace opens it, and it is not empty.
_TAGGED: Final = re.compile(r"[^{]*\{[^}]+\}")


class FencedRedis:
    """Writes to keys of the user's own, each under the daemon's token.

    Once a newer token has written to a key, older ones are refused: :exc:`ClaimLost`, and nothing is written. The token
    stands beside the key, as ``{key}:fence``, in the same hash slot. With an async client every call is awaitable.
    After Kleppmann, "How to do distributed locking" (2016): a lease alone is no mutual exclusion, the resource has to
    check.
    """

    def __init__(self, client: Any, *, name: str, token: int) -> None:
        self._client = client
        self._name = name
        self._token = token

    def set(self, key: str, value: Any) -> Any:
        """SET."""
        return self._write(key, "SET", value)

    def delete(self, key: str) -> Any:
        """DEL; the fence stays."""
        return self._write(key, "DEL")

    def incrby(self, key: str, amount: int = 1) -> Any:
        """INCRBY."""
        return self._write(key, "INCRBY", amount)

    def hset(self, key: str, mapping: Mapping[str, Any]) -> Any:
        """HSET of some fields."""
        return self._write(key, "HSET", *(part for pair in mapping.items() for part in pair))

    def hdel(self, key: str, *fields: str) -> Any:
        """HDEL."""
        return self._write(key, "HDEL", *fields)

    def rpush(self, key: str, *values: Any) -> Any:
        """RPUSH."""
        return self._write(key, "RPUSH", *values)

    def sadd(self, key: str, *members: Any) -> Any:
        """SADD."""
        return self._write(key, "SADD", *members)

    def zadd(self, key: str, mapping: Mapping[Any, float]) -> Any:
        """ZADD of members with their scores."""
        return self._write(key, "ZADD", *(part for member, score in mapping.items() for part in (score, member)))

    def xadd(self, key: str, fields: Mapping[str, Any]) -> Any:
        """XADD under an id that the server chooses."""
        return self._write(key, "XADD", "*", *(part for pair in fields.items() for part in pair))

    def _write(self, key: str, command: str, *arguments: Any) -> Any:
        verb = script("fenced")
        # A key with a hash tag of its own keeps it; any other becomes the tag.
        fence = f"{key}:fence" if _TAGGED.match(key) else f"{{{key}}}:fence"
        words = (2, key, fence, self._token, command, *arguments)
        try:
            reply = self._client.evalsha(verb.sha, *words)
            if inspect.isawaitable(reply):
                return self._awaited(reply, key, verb.source, words)
        except NoScriptError:
            reply = self._client.eval(verb.source, *words)
        return self._allowed(reply, key)

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
            f"daemon {self._name}: token {self._token} may write to {key} no more, token {newest} has: "
            "a newer start of this daemon is at work, end this one"
        )
