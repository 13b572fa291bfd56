"""The addresses that a live replica knows, and the ends of the leases that make these valid."""

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import Address, NodeRow
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.replica import Changes, Replica


class AddressTable:
    """Addresses by daemon and by node. One thread changes the table; any thread may read."""

    def __init__(self) -> None:
        #: The end of each node's lease on the lease clock.
        self.ends: dict[NodeName, float] = {}
        #: The last address of each daemon, also if the lease of its node has ended; :meth:`locate` checks that.
        self.addresses: dict[str, Address] = {}
        self._by_node: dict[str, set[str]] = {}

    def locate(self, name: str) -> Address | None:
        """Return a daemon's address, or ``None`` unless the lease of the node is valid."""
        address = self.addresses.get(name)
        if address is None or self.ends.get(address.node, 0.0) <= lease_clock():
            return None
        return address

    def on_node(self, node: str) -> list[Address]:
        """Return the valid addresses on a node, sorted by name."""
        return sorted(
            (found for name in list(self._by_node.get(node, ())) if (found := self.locate(name))),
            key=lambda address: address.name,
        )

    def count(self, node: str) -> int:
        """Return the number of daemons on a node."""
        return len(self._by_node.get(node, ()))

    def lease(self, node: NodeName) -> float:
        """Return the seconds left of a node's lease, negative after its end."""
        return self.ends.get(node, 0.0) - lease_clock()

    def apply(self, replica: Replica, changes: Changes) -> None:
        """Take over what has changed in the replica."""
        if not (changes.everything or changes.nodes):
            for name in changes.names:
                self._apply_one(replica, name)
            return
        addresses, by_node = {}, dict[str, set[str]]()
        for name, row in replica.book.items():
            address = queries.address(name, row, replica.nodes.get(row.node) if row.node else None)
            if address is not None:
                addresses[str(name)] = address
                by_node.setdefault(address.node, set()).add(name)
        self.addresses, self._by_node = addresses, by_node

    def _apply_one(self, replica: Replica, name: DaemonName) -> None:
        before = self.addresses.get(name)
        if before is not None:
            self._by_node.get(before.node, set()).discard(name)
        row = replica.book.get(name)
        node: NodeRow | None = replica.nodes.get(NodeName(row.node)) if row and row.node else None
        address = queries.address(name, row, node)
        if address is None:
            self.addresses.pop(name, None)
        else:
            self.addresses[name] = address
            self._by_node.setdefault(address.node, set()).add(name)
