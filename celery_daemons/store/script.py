"""One verb of the protocol, ready to be sent: which script, on which keys, and how to read the reply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: The most daemons that one script call handles: bounds how long Redis is busy with it.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua verb with its digest."""

    verb: str
    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class ScriptCall(Generic[T]):
    """A script call whose reply decodes to ``T``; pure, so that the blocking and the async store share it."""

    verb: str
    keys: tuple[str, ...]
    args: tuple[str | int | bytes, ...]
    decode: Callable[[Any], T]

    @property
    def script(self) -> Script:
        """The verb's script."""
        return script(self.verb)


@cache
def script(verb: str) -> Script:
    """A verb's script: its Lua file, with the shared part before it."""
    source = _files()["_shared"] + _files()[verb]
    return Script(verb, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@cache
def _files() -> dict[str, str]:
    # All with the first: were the package replaced under an agent at work, its last verbs would be another release's.
    folder = files("celery_daemons.store") / "lua"
    return {file.name.removesuffix(".lua"): file.read_text("utf-8") for file in folder.iterdir()}


def text(value: Any) -> str:
    """A bulk string as text; what is not UTF-8 was not written by this package, and shall not end who reads it."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def compact(item: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what is ``None``: Lua's JSON turns null into a value that counts as true."""
    return {key: value for key, value in item.items() if value is not None}
