"""Find what a test must not leave behind: keys outside its namespace, and keys without an owner."""

from typing import Any

from celery_daemons.domain.names import NodeName
from celery_daemons.store.keys import Keys


def all_keys(client: Any) -> set[str]:
    """Return every key on the server."""
    return {key.decode() for key in client.keys("*")}


def find(client: Any, keys: Keys, before: set[str]) -> list[str]:
    """Return a description of each wrong key or record; ``before`` has the keys from before the test."""
    after = all_keys(client)
    ours = {key for key in after if key.startswith(f"{{{keys.namespace}}}:v1:")}
    wrong = [f"{key}: outside the namespace" for key in sorted(after - ours - before)]
    owned = {
        keys.cluster,
        keys.monitor,
        keys.clock,
        keys.nodes,
        keys.leases,
        keys.lease_lengths,
        keys.specs,
        keys.book,
        keys.traces,
        keys.scans,
        keys.gone,
        keys.ended,
        keys.journal,
        keys.counts,
        keys.unhealthy,
    }
    registered = {NodeName(name.decode()) for name in client.hkeys(keys.nodes)}
    for node in registered:
        owned |= {keys.held(node), keys.generation(node)}
    # Questions and answers expire, whether or not they are taken.
    owned |= {key for key in ours if key.startswith(keys.answer("")) and client.pttl(key) > 0}
    owned |= {keys.bell(node) for node in registered if client.pttl(keys.bell(node)) > 0}
    wrong += [f"{key}: its node is not registered" for key in sorted(ours - owned)]
    entries = set(client.hkeys(keys.book))
    wrong += [f"trace of {name.decode()}: no entry in the book" for name in set(client.hkeys(keys.traces)) - entries]
    with_lease = {name.decode() for name in client.zrange(keys.leases, 0, -1)}
    wrong += [f"lease of {node}: the node is not registered" for node in sorted(with_lease - registered)]
    with_length = {name.decode() for name in client.zrange(keys.lease_lengths, 0, -1)}
    wrong += [f"length of the lease of {node}: the node is not registered" for node in sorted(with_length - registered)]
    if keys.monitor in ours and client.pttl(keys.monitor) < 0:
        wrong.append(f"{keys.monitor}: has no expiry")
    return wrong
