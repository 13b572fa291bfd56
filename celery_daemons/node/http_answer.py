"""The answer of a part of the node to an HTTP request; the server sends it."""

from dataclasses import dataclass
from typing import Final

_PLAIN_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """The answer to a request."""

    status: int
    body: bytes
    content_type: str = _PLAIN_TEXT
