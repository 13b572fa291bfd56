"""Records to and from the JSON that Redis holds; what cannot be read is told apart from what is not there."""

import re
from typing import Any, Final, TypeVar

import msgspec

from celery_daemons.domain.records import BookRow, NodeRow, SpecRow

R = TypeVar("R", SpecRow, BookRow, NodeRow)

_encoder = msgspec.json.Encoder()
_decoders: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (SpecRow, BookRow, NodeRow)}

#: A token as the scripts write it: text, because Lua rounds large numbers; at most 16 digits, because microseconds of
#: Redis TIME have no more until the year 2286.
_TOKEN: Final = re.compile(rb'"token"\s*:\s*("(?=[0-9]{1,16}")0*([0-9]+)")')


class Corrupt(ValueError):
    """A value in Redis is not the record that its key should hold."""


def encode(value: Any) -> bytes:
    """Plain data or a record as compact JSON."""
    return _encoder.encode(value)


def printable(text: str) -> str:
    """Text of whatever origin as UTF-8 can carry it: an error may quote a file name that is not."""
    return text.encode("utf-8", "replace").decode()


def decode(kind: type[R], raw: bytes | str) -> R:
    """Read one record; raises :exc:`Corrupt` that says what is wrong with it."""
    try:
        record: R = _decoders[kind].decode(_with_a_number(raw) if kind is BookRow else raw)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Corrupt(str(error)) from error
    return record


def _with_a_number(raw: bytes | str) -> bytes:
    """Return an entry of the book with its token as a number, for a decoder that takes no other text for a number."""
    if isinstance(raw, str):
        raw = raw.encode()
    token = _TOKEN.search(raw)
    if token is None:
        raise Corrupt("its token is not text of 1 to 16 digits")
    return raw[: token.start(1)] + token[2] + raw[token.end(1) :]


def decode_or_none(kind: type[R], raw: bytes | str | None) -> R | None:
    """Read one record; ``None`` for one that is absent or corrupt."""
    if raw is None:
        return None
    try:
        return decode(kind, raw)
    except Corrupt:
        return None
