"""Write lines to Redis: one stream per file, and beside it the shipped position and the token of the shipper.

Lines and position change together or not at all, and only under the newest fencing token. That makes it exactly once:

* A worker that dies between two steps leaves no step half done; the next daemon continues from the recorded position.
* A daemon that was considered dead and wakes up presents an older token and is refused.
* A command that the client sends twice, because the first answer was lost, finds that the position has moved.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from celery_daemons import Fenced
from examples.log_shipper.follow import Position

# KEYS[1] state: token, position      ARGV[1] token
# From here on, holders of an older token are refused. Returns the position, or nothing if refused.
_TAKE_OVER = """
local token, position = unpack(redis.call('HMGET', KEYS[1], 'token', 'position'))
if token and tonumber(token) > tonumber(ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
return position or ''
"""

# KEYS[1] state   KEYS[2] stream      ARGV[1] token   ARGV[2] position before   ARGV[3] position after   ARGV[4..] lines
# Returns the position after the call, or nothing if refused.
_APPEND = """
local token, position = unpack(redis.call('HMGET', KEYS[1], 'token', 'position'))
if token ~= ARGV[1] then return false end
position = position or ''
if position ~= ARGV[2] then return position end
for i = 4, #ARGV do
    redis.call('XADD', KEYS[2], '*', 'line', ARGV[i], 'token', ARGV[1])
end
redis.call('HSET', KEYS[1], 'position', ARGV[3])
return ARGV[3]
"""

#: Connections that the daemons of one process share; further daemons wait for a free one.
_CONNECTIONS = 8


def state_key(path: str) -> str:
    """Return the key of a file's token and position. The braces put both keys of a file into one hash slot."""
    return f"shipped:{{{path}}}:state"


def stream_key(path: str) -> str:
    """Return the key of the stream of a file's lines, each with the token of its shipper."""
    return f"shipped:{{{path}}}:lines"


class Sink:
    """Write the lines of all daemons of one event loop."""

    def __init__(self, url: str) -> None:
        # Any: the client's stubs differ between its versions.
        client: Any = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS))
        self._take_over = client.register_script(_TAKE_OVER)
        self._append = client.register_script(_APPEND)

    async def take_over(self, path: str, token: int) -> Position:
        """Refuse older tokens from now on; return how far the file is shipped. Raises Fenced."""
        answer = await self._take_over(keys=[state_key(path)], args=[token])
        return _position(answer, path, token)

    async def append(
        self, path: str, token: int, lines: Sequence[bytes], *, before: Position, after: Position
    ) -> Position:
        """Append lines and move from ``before`` to ``after`` in one step; return the new position. Raises Fenced."""
        keys = [state_key(path), stream_key(path)]
        answer = await self._append(keys=keys, args=[token, str(before), str(after), *lines])
        return _position(answer, path, token)


def _position(answer: bytes | None, path: str, token: int) -> Position:
    if answer is None:
        raise Fenced(f"{path}: token {token} is void, a newer one ships this file")
    return Position.parse(answer.decode())
