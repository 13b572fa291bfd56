"""The verb by which a node reads what it should run, a page at a time."""

from dataclasses import dataclass
from typing import Any

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH, ScriptCall, text


@dataclass(frozen=True, slots=True)
class Holdings:
    """A page of what is on a node, and the generation it stands at; ``None`` for a record that is corrupt.

    The ``cursor`` leads to the next page, and is ``"0"`` on the last. The whole holds at the first page's generation:
    what came or went after it grew may be missing or be there.
    """

    generation: int
    rows: dict[DaemonName, BookRow | None]
    cursor: str


def page(keys: Keys, node: NodeName, cursor: str = "0") -> ScriptCall[Holdings]:
    """One page of what the book says is on a node."""

    def decode(reply: Any) -> Holdings:
        pairs = zip(reply[2::2], reply[3::2], strict=True)
        rows = {DaemonName(text(name)): decode_or_none(BookRow, raw) for name, raw in pairs}
        return Holdings(int(reply[0]), rows, text(reply[1]))

    return ScriptCall("held", (keys.held(node), keys.book, keys.generation(node)), (node, cursor, BATCH), decode)
