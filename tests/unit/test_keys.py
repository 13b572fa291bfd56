"""The names of keys."""

import itertools

from celery_daemons.domain.names import NodeName
from celery_daemons.store.keys import Keys

ODD = [NodeName(name) for name in ("n", "n:daemons", "daemons", "generation", "n:generation", "a/b:c@d+e", "node:n")]


def all_keys(namespace: str) -> list[str]:
    keys = Keys(namespace)
    shared = [
        keys.cluster,
        keys.monitor,
        keys.clock,
        keys.nodes,
        keys.leases,
        keys.specs,
        keys.book,
        keys.scans,
        keys.gone,
        keys.journal,
    ]
    return shared + [
        key for node in ODD for key in (keys.held(node), keys.generation(node), keys.bell(node), keys.answer(node))
    ]


def test_every_key_has_namespace_and_layout_and_the_same_hash_slot() -> None:
    assert all(key.startswith("{shop}:v1:") for key in all_keys("shop"))


def test_no_two_keys_are_equal_whatever_the_names_of_nodes() -> None:
    keys = all_keys("shop")

    assert len(set(keys)) == len(keys)


def test_no_two_namespaces_share_a_key() -> None:
    for first, second in itertools.combinations(["a", "a:v1", "b", "a:v1:node"], 2):
        assert not set(all_keys(first)) & set(all_keys(second))
