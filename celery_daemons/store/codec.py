"""Convert records to and from the JSON that Redis holds, and distinguish corrupt records from absent ones."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from celery_daemons.domain.records import BookRow, NodeRow, SpecRow

R = TypeVar("R", SpecRow, BookRow, NodeRow)

#: A token as the scripts write it: text, because Lua rounds large numbers; at most 16 digits, because microseconds of
#: Redis TIME have 16 digits until the year 2286.
_TOKEN: Final = re.compile(rb'"token"\s*:\s*("(?=[0-9]{1,16}")0*([0-9]+)")')

_encoder = msgspec.json.Encoder()
_book_decoder = msgspec.json.Decoder(BookRow)


class Corrupt(ValueError):
    """A value in Redis is not the record that the key should hold; the message says what is wrong."""


def encode(value: Any) -> bytes:
    """Encode plain data or a record as compact JSON."""
    return _encoder.encode(value)


def printable(text: str) -> str:
    """Replace what UTF-8 cannot encode: an error message may quote a file name that is not valid text."""
    return text.encode("utf-8", "replace").decode()


def _read_entry(raw: bytes | str) -> BookRow:
    if isinstance(raw, str):
        raw = raw.encode()
    token = _TOKEN.search(raw)
    if token is None:
        raise Corrupt("its token is not text of 1 to 16 digits")
    # The token becomes a number before the decoder reads it. A lax decoder, which reads text as a number, would also
    # accept a pid or a restart count that is text; the scripts take such an entry for corrupt.
    return _book_decoder.decode(raw[: token.start(1)] + token[2] + raw[token.end(1) :])


_readers: dict[type, Callable[[bytes | str], Any]] = {
    SpecRow: msgspec.json.Decoder(SpecRow).decode,
    BookRow: _read_entry,
    NodeRow: msgspec.json.Decoder(NodeRow).decode,
}


def decode(kind: type[R], raw: bytes | str) -> R:
    """Read a record. Raises :exc:`Corrupt`."""
    try:
        record: R = _readers[kind](raw)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Corrupt(str(error)) from error
    return record


def decode_or_none(kind: type[R], raw: bytes | str | None) -> R | None:
    """Read a record; return ``None`` for an absent or corrupt record."""
    if raw is None:
        return None
    try:
        return decode(kind, raw)
    except Corrupt:
        return None
