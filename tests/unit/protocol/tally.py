"""The model's own count of daemons, by reading every record, and what the server has counted."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

Records = Mapping[str, Mapping[str, Any]]

_ATTENTION = {"backoff": 1.0, "failed": 2.0, "unplaceable": 3.0}


def counts_of(specs: Records, book: Records) -> dict[str, int]:
    """Return the number of daemons by desired state, status, incarnation and launcher."""
    found = Counter[str]()
    for name in specs.keys() | book.keys():
        spec, entry = specs.get(name), book.get(name, {})
        if entry.get("node") is not None:
            wanted = "forgotten" if spec is None else spec["desired"]
            found[f"{wanted},{entry['status']},{entry['incarnation']},{entry['launcher']}"] += 1
        elif spec is not None:
            status = "unplaceable" if entry.get("status") == "unplaceable" else "pending"
            found[f"{spec['desired']},{status if spec['desired'] == 'running' else 'stopped'},,{spec['launcher']}"] += 1
    return dict(found)


def attention_of(book: Records) -> dict[str, float]:
    """Return the daemons that need attention, with the number of their status."""
    return {name: _ATTENTION[entry["status"]] for name, entry in book.items() if entry["status"] in _ATTENTION}
