"""A call of a verb: the Lua script, its keys and arguments, and how to decode the reply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: The most daemons per script call. More would block Redis, and all its other clients, for longer.
BATCH = 1000
#: The line in the header of a verb that reads or writes daemons.
_INCLUDES_DAEMONS = "-- include: _daemons\n"


@dataclass(frozen=True, slots=True)
class Script:
    """The Lua source of a verb, and the digest for EVALSHA."""

    verb: str
    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class ScriptCall(Generic[T]):
    """A script call whose reply decodes to ``T``; does no I/O, so that blocking and async stores can run the call."""

    verb: str
    keys: tuple[str, ...]
    args: tuple[str | int | bytes, ...]
    decode: Callable[[Any], T]

    @property
    def script(self) -> Script:
        """Return the verb's script."""
        return script(self.verb)


@cache
def script(verb: str) -> Script:
    """Return a verb's script: the shared Lua, that of daemons if the verb includes it, and the file of the verb."""
    own = _files()[verb]
    source = _files()["_shared"] + (_files()["_daemons"] if _INCLUDES_DAEMONS in own else "") + own
    return Script(verb, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@cache
def _files() -> dict[str, str]:
    # All files are read at the first call. If the package is upgraded while a process runs, a verb that the process
    # reads later would be of another release.
    folder = files("celery_daemons.store") / "lua"
    return {file.name.removesuffix(".lua"): file.read_text("utf-8") for file in folder.iterdir()}


def text(value: Any) -> str:
    """Decode a bulk string. Invalid UTF-8, which this package never writes, is replaced, so that no reader crashes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def compact(item: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the values that are ``None``: Lua's JSON decodes null as a value that counts as true."""
    return {key: value for key, value in item.items() if value is not None}
