"""The numbers of daemons that the verbs keep, against the records themselves."""

import random
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import fakeredis
import pytest

from celery_daemons.domain import runs
from celery_daemons.domain.counts import UNHEALTHY, count_field
from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.store import book, lease, listing, specs
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.summary import repair, summary
from tests.store.driver import ARGUMENTS, I1, I2, N1, N2, TAIL, TTL_MS, StoreDriver, names, row, running

POLL = LauncherName("poll")
NAMES = [DaemonName(name) for name in ("a", "b", "c", "d", "e")]
REPORTED = [DaemonStatus.STARTING, DaemonStatus.RUNNING, DaemonStatus.BACKOFF, DaemonStatus.FAILED]


def check(cluster: StoreDriver, *, listings: bool = True) -> None:
    """Compare counts, index, status and listings with a count of every record."""
    wanted = {name.decode(): raw for name, raw in cluster.client.hgetall(cluster.keys.specs).items()}
    entries = {name.decode(): raw for name, raw in cluster.client.hgetall(cluster.keys.book).items()}
    expected, attention = Counter[str](), dict[str, int]()
    for name in wanted.keys() | entries.keys():
        spec, entry = decode_or_none(SpecRow, wanted.get(name)), decode_or_none(BookRow, entries.get(name))
        field = count_field(spec, entry)
        if field is not None:
            expected[field] += 1
        if entry is not None and entry.node is not None:
            is_stopped = spec is not None and spec.desired == "stopped"
            assert entry.unwanted == ("forgotten" if spec is None else "stopped" if is_stopped else None), name
        if entry is not None and entry.status in UNHEALTHY:
            attention[name] = UNHEALTHY[entry.status]

    assert cluster.run(summary(cluster.keys)).counts == expected
    assert listing.unhealthy(cluster.store) == attention

    if not listings:
        return
    lookups = cluster.lookups
    listed, status = list(lookups.list()), lookups.status()
    by_status = Counter(str(record.status) for record in listed)
    desired = sum(record.desired == "running" for record in listed)
    assert {name: count for name, count in status.daemons.items() if count} == {
        **by_status,
        **({"desired": desired} if desired else {}),
    }
    for some in DaemonStatus:
        assert {r.name for r in lookups.list(status=some)} == {r.name for r in listed if r.status == some}
    for node in (N1, N2):
        assert {r.name for r in lookups.list(node=node)} == {r.name for r in listed if r.node == node}


class RandomVerbs:
    """Calls verbs with arguments that are right, out of date or wrong."""

    def __init__(self, cluster: StoreDriver, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._epoch = cluster.lead()
        self._nodes: dict[NodeName, Incarnation] = {N1: I1, N2: I2}
        self._saved: dict[str, bytes] = {}
        for node in self._nodes:
            self._join(node)

    def step(self) -> str:
        """Call one verb and return its name."""
        verb = self._rng.choice(
            [
                *["want", "desire", "assign", "claim", "report", "release"] * 3,
                *("forget", "recall", "park", "sweep", "reassert", "join", "lose", "save", "restore"),
            ]
        )
        getattr(self, f"_{verb}")()
        return verb

    def _join(self, node: NodeName | None = None) -> None:
        node = node or self._node()
        incarnation = Incarnation(f"i{self._rng.random()}")
        previous, self._nodes[node] = self._nodes[node], incarnation
        self._run(lease.join(self._cluster.keys, node, row(incarnation), ttl_ms=TTL_MS, previous=previous))

    def _want(self) -> None:
        items = [(name, self._rng.choice([TAIL, TAIL, POLL]), self._arguments()) for name in self._some()]
        items += items[: self._rng.randrange(2)]  # a batch may have a name twice
        mode: Any = self._rng.choice(["spawn", "replace", "scan"])
        self._run(specs.record(self._cluster.keys, items, mode=mode, epoch=self._epoch if mode == "scan" else None))

    def _desire(self) -> None:
        action: Any = self._rng.choice(["stop", "start", "restart", "move"])
        self._run(specs.desire(self._cluster.keys, self._name(), action))

    def _forget(self) -> None:
        self._run(specs.forget(self._cluster.keys, self._some(), cause="test"))

    def _assign(self) -> None:
        node = self._node()
        items = [(name, "test") for name in self._some()]
        self._run(book.assign(self._cluster.keys, self._epoch, node, self._nodes[node], items))

    def _recall(self) -> None:
        self._run(book.recall(self._cluster.keys, self._epoch, self._node(), [(n, "test") for n in self._some()]))

    def _park(self) -> None:
        self._run(book.park(self._cluster.keys, self._epoch, [(name, "nowhere") for name in self._some()]))

    def _claim(self) -> None:
        node = self._node()
        items = [runs.Assignment(name, self._token(name)) for name in self._some()]
        self._run(book.claim(self._cluster.keys, node, self._nodes[node], items))

    def _report(self) -> None:
        node = self._node()
        items = [
            runs.Report(name=name, token=self._token(name), status=self._rng.choice(REPORTED), pid=1, restarts=0)
            for name in self._some()
        ]
        self._run(book.report(self._cluster.keys, node, self._nodes[node], items))

    def _release(self) -> None:
        items = [
            runs.Release(name=name, token=self._token(name), outcome=self._rng.choice([*Outcome]), restarts=1)
            for name in self._some()
        ]
        self._run(book.release(self._cluster.keys, self._node(), items))

    def _sweep(self) -> None:
        node = self._node()
        self._cluster.end_lease(node)
        self._cluster.sweep(self._epoch, node, limit=2)
        self._join(node)

    def _reassert(self) -> None:
        node = self._node()
        held = [name for name in NAMES if (self._cluster.entry(name) or {}).get("node") == node]
        items = [running(name, self._token(name), status=self._rng.choice(REPORTED)) for name in held or self._some()]
        self._run(book.reassert(self._cluster.keys, node, row(self._nodes[node]), items, ttl_ms=TTL_MS))

    def _lose(self) -> None:
        held = {node: [n for n in NAMES if (self._cluster.entry(n) or {}).get("node") == node] for node in self._nodes}
        tokens = {name: self._token(name) for name in NAMES}
        self._cluster.lose_data()
        self._epoch = self._cluster.lead()
        for node, some in held.items():
            items = [running(name, tokens[name]) for name in some]
            self._run(book.reassert(self._cluster.keys, node, row(self._nodes[node]), items, ttl_ms=TTL_MS))

    def _save(self) -> None:
        keys = self._cluster.client.keys(f"{{{self._cluster.keys.namespace}}}:*")
        self._saved = {key: self._cluster.client.dump(key) for key in keys}
        self._then = dict(self._nodes)

    def _restore(self) -> None:
        if self._saved:
            self._cluster.lose_data()
            for key, value in self._saved.items():
                self._cluster.client.restore(key, TTL_MS if key == self._cluster.keys.monitor.encode() else 0, value)
            self._nodes = dict(self._then)
            self._epoch = self._cluster.depose()

    def _run(self, call: Any) -> None:
        self._cluster.run(call)

    def _node(self) -> NodeName:
        return self._rng.choice([N1, N1, N2])

    def _name(self) -> DaemonName:
        return self._rng.choice(NAMES)

    def _some(self) -> list[DaemonName]:
        return self._rng.sample(NAMES, self._rng.randint(1, len(NAMES)))

    def _arguments(self) -> str:
        return self._rng.choice([ARGUMENTS, ARGUMENTS, "[[1], {}]"])

    def _token(self, name: str) -> Token:
        token = int((self._cluster.entry(name) or {"token": "1"})["token"])
        return Token(token if self._rng.random() < 0.9 else max(1, token - 1))


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_the_records_after_any_sequence_of_verbs(cluster: StoreDriver, seed: int) -> None:
    """Attacks: a verb that changes a record and not the counts; also over losses of data and restored snapshots."""
    verbs = RandomVerbs(cluster, random.Random(seed))
    done = []
    # The double takes much longer for a script than a server.
    for number in range(15 if isinstance(cluster.client, fakeredis.FakeRedis) else 60):
        done.append(verbs.step())
        try:
            check(cluster, listings=number % 6 == 0)
        except AssertionError as error:
            raise AssertionError(f"after {done[-5:]}") from error


def test_daemons_of_a_lost_node_count_as_pending_from_the_end_of_its_lease(cluster: StoreDriver) -> None:
    cluster.started("x", "y")
    cluster.desire("y", "stop")
    lookups = cluster.lookups
    assert lookups.status().launchers["tail"]["running"] == 2

    cluster.end_lease()

    numbers = lookups.status().launchers["tail"]
    assert (numbers["running"], numbers["pending"], numbers["stopped"], numbers["desired"]) == (0, 1, 1, 1)
    check(cluster)


def test_a_forgotten_daemon_counts_no_longer_while_it_stops(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x", "y")

    cluster.forget("x")
    assert cluster.lookups.status().daemons["running"] == 1
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])

    check(cluster)
    assert cluster.run(summary(cluster.keys)).counts == {f"running,running,{I1},tail": 1}


def test_a_count_that_is_no_number_stops_no_verb_and_is_repaired(cluster: StoreDriver) -> None:
    """Attacks: the counts are changed by hand; they are informational only and must stop no daemon."""
    epoch, tokens = cluster.started("x")
    field = f"running,running,{I1},tail"
    cluster.client.hset(cluster.keys.counts, field, "many")

    assert cluster.report("x", tokens["x"], DaemonStatus.BACKOFF)
    assert cluster.report("x", tokens["x"])
    assert cluster.run(repair(cluster.keys, epoch, [(field, 1)], []))

    check(cluster)


def test_counts_of_another_type_stop_no_verb_and_are_repaired(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.client.delete(cluster.keys.counts)
    cluster.client.set(cluster.keys.counts, "no hash")

    assert cluster.report("x", tokens["x"], DaemonStatus.BACKOFF)
    assert cluster.run(summary(cluster.keys)).counts == {}
    assert cluster.run(repair(cluster.keys, epoch, [(f"running,backoff,{I1},tail", 1)], []))

    check(cluster)


def test_a_repair_checks_each_name_again(cluster: StoreDriver) -> None:
    """A daemon may have recovered, or its mark may be right again, since the monitor compared."""
    epoch, _ = cluster.started("well", "gone")
    cluster.client.zadd(cluster.keys.unhealthy, {"well": 2, "nobody": 2})

    assert cluster.run(repair(cluster.keys, epoch, [], names(["well", "nobody", "gone"])))

    check(cluster)


def test_a_deposed_monitor_repairs_nothing(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x")
    cluster.depose()

    assert not cluster.run(repair(cluster.keys, epoch, [("running,pending,,tail", 5)], []))

    check(cluster)


def test_names_of_launchers_written_by_hand_do_not_break_the_summary(cluster: StoreDriver) -> None:
    cluster.client.hset(cluster.keys.counts, mapping={"odd": 3, "running,odd,,a,b": 1, "running,running,,t": -2})

    assert set(cluster.lookups.status().launchers) == {"a,b"}


def test_only_the_shared_functions_write_specs_and_entries() -> None:
    """A verb that wrote a record itself would leave the counts wrong."""
    folder = files("celery_daemons.store") / "lua"
    checked = 0
    for file in folder.iterdir():
        source = file.read_text("utf-8")
        keys = re.findall(r"^-- KEYS\[(\d+)\] (specs|book) ", source, re.MULTILINE)
        for number, _ in keys:
            checked += 1
            assert not re.search(rf"(HSET|HDEL|HINCRBY|HMSET)', KEYS\[{number}\]|put\(KEYS\[{number}\]", source), (
                file.name
            )
    assert checked > 15
