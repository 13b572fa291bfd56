"""The verb with which a node reads the daemons assigned to it, page by page."""

from dataclasses import dataclass
from typing import Any

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH, ScriptCall, text


@dataclass(frozen=True, slots=True)
class Holdings:
    """A page of a node's daemons, and the node's generation; a corrupt record is ``None``.

    ``cursor`` leads to the next page and is ``"0"`` on the last page. All pages together are complete as of the
    generation of the first page; daemons that were assigned or released after that may be on a page or not.
    """

    generation: int
    rows: dict[DaemonName, BookRow | None]
    cursor: str


def page(keys: Keys, node: NodeName, cursor: str = "0") -> ScriptCall[Holdings]:
    """Read a page of the daemons that the address book assigns to a node."""

    def decode(reply: Any) -> Holdings:
        pairs = zip(reply[2::2], reply[3::2], strict=True)
        rows = {DaemonName(text(name)): decode_or_none(BookRow, raw) for name, raw in pairs}
        return Holdings(int(reply[0]), rows, text(reply[1]))

    return ScriptCall("held", (keys.held(node), keys.book, keys.generation(node)), (node, cursor, BATCH), decode)
