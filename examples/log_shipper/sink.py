"""Where the lines go: a Redis stream a file, and beside it the position up to which it has been shipped, and by whom.

Lines and position change together or not at all, and only for the newest fencing token. That makes it exactly once:

* a worker that dies between two steps leaves none half done; the next daemon goes on from the recorded position;
* a daemon that was believed dead and wakes up again shows an older token, and is refused;
* a command that the client sends twice, because the first answer was lost, finds its position taken already.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from celery_daemons import Fenced
from examples.log_shipper.follow import Position

# KEYS[1] state: token, position      ARGV[1] token
# From here on, whoever holds an older token can write no more. Returns the position, or nothing if refused.
_TAKE_OVER = """
local token, position = unpack(redis.call('HMGET', KEYS[1], 'token', 'position'))
if token and tonumber(token) > tonumber(ARGV[1]) then return false end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
return position or ''
"""

# KEYS[1] state   KEYS[2] stream      ARGV[1] token   ARGV[2] position before   ARGV[3] position after   ARGV[4..] lines
# Returns the position as it is now, or nothing if refused.
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

#: Daemons of one process share so many connections; more of them than that wait for their turn.
_CONNECTIONS = 8


def state_key(path: str) -> str:
    """The hash that holds a file's token and position; in braces, so that both keys share a slot of a Redis Cluster."""
    return f"shipped:{{{path}}}:state"


def stream_key(path: str) -> str:
    """The stream that holds a file's lines, each with the token under which it was shipped."""
    return f"shipped:{{{path}}}:lines"


class Sink:
    """The writing end, for all daemons of one event loop."""

    def __init__(self, url: str) -> None:
        # Any: the client's stubs differ between its versions.
        client: Any = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS))
        self._take_over = client.register_script(_TAKE_OVER)
        self._append = client.register_script(_APPEND)

    async def take_over(self, path: str, token: int) -> Position:
        """Shut out everyone with an older token; returns how far the file is shipped. Raises Fenced."""
        answer = await self._take_over(keys=[state_key(path)], args=[token])
        return _position(answer, path, token)

    async def append(
        self, path: str, token: int, lines: Sequence[bytes], *, before: Position, after: Position
    ) -> Position:
        """Add the lines and move from ``before`` to ``after``, as one step; returns where to go on. Raises Fenced."""
        keys = [state_key(path), stream_key(path)]
        answer = await self._append(keys=keys, args=[token, str(before), str(after), *lines])
        return _position(answer, path, token)


def _position(answer: bytes | None, path: str, token: int) -> Position:
    if answer is None:
        raise Fenced(f"{path}: token {token} is void, a newer one ships this file")
    return Position.parse(answer.decode())
