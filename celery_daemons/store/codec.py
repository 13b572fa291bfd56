"""Records to and from the JSON that Redis holds; what cannot be read is told apart from what is not there."""

from typing import Any, Final, TypeVar

import msgspec

from celery_daemons.domain.records import BookRow, NodeRow, SpecRow

R = TypeVar("R", SpecRow, BookRow, NodeRow)

_encoder = msgspec.json.Encoder()
_decoders: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (SpecRow, BookRow, NodeRow)}

#: Microseconds of Redis TIME in decimals; more digits than these no counter has reached.
_TOKEN_DIGITS: Final = 16


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
        record: R = _decoders[kind].decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(str(error)) from error
    token = getattr(record, "token", "0")
    if len(token) > _TOKEN_DIGITS or not token.isascii() or not token.isdigit():
        raise Corrupt(f"{token[:20]!r} is not a token")
    return record


def decode_or_none(kind: type[R], raw: bytes | str | None) -> R | None:
    """Read one record; ``None`` for one that is absent or corrupt."""
    if raw is None:
        return None
    try:
        return decode(kind, raw)
    except Corrupt:
        return None
