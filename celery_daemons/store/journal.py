"""Read and write the journal: a capped stream of every change, for people, replicas and the monitor."""

from collections.abc import Sequence
from typing import Any

import msgspec

from celery_daemons.domain.records import JournalEntry
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import Keys
from celery_daemons.store.query import Query, query
from celery_daemons.store.script import ScriptCall, text

_ITEMS = msgspec.json.Decoder(tuple[tuple[str, ...], ...])


def note(
    keys: Keys,
    event: str,
    *,
    node: str = "",
    cause: str = "",
    items: Sequence[tuple[str, str, str]] = (),
    actor: str = "",
) -> ScriptCall[int]:
    """Write an event to the journal without changing anything else."""
    return ScriptCall("note", (keys.journal,), (event, node, printable(cause), encode(items), actor), int)


def decode_entry(raw_id: Any, raw: Any) -> JournalEntry:
    """Decode a stream entry; items that cannot be read are left out."""
    entry_id = text(raw_id)
    raw_items = raw.pop(b"items", b"[]")
    fields = {text(key): text(value) for key, value in raw.items()}
    try:
        items = _ITEMS.decode(raw_items)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        items = ()
    epoch = fields.get("epoch", "")
    return JournalEntry(
        id=entry_id,
        at_ms=int(entry_id.partition("-")[0]),
        event=fields.get("event", ""),
        node=fields.get("node") or None,
        epoch=int(epoch) if epoch.isdecimal() else None,
        cause=fields.get("cause") or None,
        actor=fields.get("actor") or None,
        items=items,
    )


@query
def last_id(keys: Keys) -> Query[str]:
    """Return the id of the newest entry, ``"0-0"`` if there is none."""
    return Query(
        lambda client: client.xrevrange(keys.journal, count=1),
        lambda entries: text(entries[0][0]) if entries else "0-0",
    )


@query
def follow(keys: Keys, after: str, *, block_ms: int, count: int = 200) -> Query[list[JournalEntry]]:
    """Return the entries after ``after``; wait up to ``block_ms`` milliseconds for the first, not at all if 0."""
    return Query(
        lambda client: client.xread({keys.journal: after}, count=count, block=block_ms or None),
        lambda reply: [decode_entry(entry_id, raw) for _, entries in reply or () for entry_id, raw in entries],
    )


@query
def newest(keys: Keys, count: int) -> Query[list[JournalEntry]]:
    """Return the last ``count`` entries, oldest first."""
    return Query(
        lambda client: client.xrevrange(keys.journal, count=count),
        lambda entries: [decode_entry(entry_id, raw) for entry_id, raw in reversed(entries)],
    )


@query
def oldest_id(keys: Keys) -> Query[str | None]:
    """Return the id of the oldest entry; a follower whose position is older may have missed entries."""
    return Query(
        lambda client: client.xrange(keys.journal, count=1), lambda entries: text(entries[0][0]) if entries else None
    )


def position(entry_id: str) -> tuple[int, int]:
    """Return a stream id as numbers, which compare in the order of the stream."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
