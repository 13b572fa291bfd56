"""Observe the demo: address book, feed and streams together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import redis

from celery_daemons import Address, AddressBook, DaemonStatus, Node, NodeStatus
from examples.log_shipper.demo.audit import Shipped
from examples.log_shipper.demo.feed import Feed
from examples.log_shipper.sink import stream_key

#: Entries of a stream that one call reads.
_PAGE: Final = 5000


@dataclass(frozen=True, slots=True)
class Row:
    """One file and its daemon."""

    name: str
    address: Address | None
    written: int
    shipped: int


class Watch:
    """Read the state of the demo. Places of daemons come from the replica in this process, without a round trip."""

    def __init__(self, book: AddressBook, url: str, feed: Feed) -> None:
        self._book = book
        self._feed = feed
        # Any: the client's stubs differ between its versions.
        self._redis: Any = redis.Redis.from_url(url)
        self.daemons = {f"ship:{path}": name for name, path in feed.paths.items()}

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def rows(self) -> list[Row]:
        """Return every file with its counts, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for path in self._feed.paths.values():
                pipe.xlen(stream_key(str(path)))
            lengths = pipe.execute()
        return [
            Row(name, self._book.locate(daemon), self._feed.written[name], length)
            for (daemon, name), length in zip(self.daemons.items(), lengths, strict=True)
        ]

    def node(self, name: str) -> Node | None:
        """Return a node if it is up."""
        return next((node for node in self.nodes() if node.name == name and node.status is NodeStatus.UP), None)

    def nodes(self) -> list[Node]:
        """Return all registered nodes."""
        return self._book.nodes()

    def on(self, node: str) -> dict[str, Address]:
        """Return the daemons on a node by name."""
        return {str(address.name): address for address in self._book.process_list(node)}

    def all_run(self) -> bool:
        """Return whether every file has a running daemon."""
        return all(self._running(name) for name in self.daemons)

    def all_moved(self, before: Mapping[str, Address]) -> bool:
        """Return whether each of these daemons runs on another node now, under a newer token."""
        return all(
            (now := self._running(name)) and now.node != address.node and now.token > address.token
            for name, address in before.items()
        )

    def all_shipped(self) -> bool:
        """Return whether as many lines are shipped as are written."""
        return all(row.shipped >= row.written for row in self.rows())

    def shipped(self, name: str) -> list[Shipped]:
        """Return all shipped lines of a file, in order."""
        key, entries, after = stream_key(str(self._feed.paths[name])), list[Shipped](), "-"
        while page := self._redis.xrange(key, min=after, count=_PAGE):
            entries += (Shipped(fields[b"line"], int(fields[b"token"])) for _, fields in page)
            after = "(" + page[-1][0].decode()
        return entries

    def _running(self, name: str) -> Address | None:
        address = self._book.locate(name)
        return address if address is not None and address.status is DaemonStatus.RUNNING else None
