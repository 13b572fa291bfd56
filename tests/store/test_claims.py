"""A node's verbs for its daemons: claim, report, release, and reading its assignments."""

import pytest

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.errors import LeaseLost
from celery_daemons.store import assignments, book, lease, specs
from tests.store.driver import ARGUMENTS, I1, I2, N1, N2, TAIL, TTL_MS, StoreDriver, row


def assigned(cluster: StoreDriver, name: str = "x") -> Token:
    """Assign a daemon to node 1 and return the token."""
    cluster.join()
    cluster.want(name)
    dispatch = cluster.assign(cluster.lead(), name)
    assert isinstance(dispatch, book.Dispatch)
    return dispatch.tokens[0]


def test_a_first_claim_keeps_the_token_and_returns_the_spec(cluster: StoreDriver) -> None:
    token = assigned(cluster)

    claim = cluster.claim("x", token)

    assert claim == runs.ClaimResult(token, TAIL, ARGUMENTS, cluster.spec("x")["version"], 0)
    assert cluster.entry("x")["status"] == "starting"
    assert (cluster.last().event, cluster.last().node, cluster.last().items) == ("claim", N1, (("x", str(token), ""),))


def test_every_later_claim_gets_a_newer_token(cluster: StoreDriver) -> None:
    """A resource that a daemon writes to can distinguish its runs by the token."""
    token = assigned(cluster)
    seen = [token]
    cluster.claim("x", token)

    for _ in range(5):
        seen.append(cluster.claim("x", seen[-1]).token)

    assert seen == sorted(set(seen))
    assert cluster.entry("x")["token"] == str(seen[-1])


def test_a_claim_whose_reply_was_lost_can_be_repeated(cluster: StoreDriver) -> None:
    token = assigned(cluster)
    cluster.claim("x", token)

    again = cluster.claim("x", token)

    assert not again.refused
    assert again.token > token


def test_a_claim_for_an_older_token_is_refused(cluster: StoreDriver) -> None:
    token = assigned(cluster)
    cluster.claim("x", cluster.claim("x", token).token)
    before = cluster.contents()

    assert cluster.claim("x", token).refused == "superseded"
    assert cluster.contents() == before


def test_tokens_that_differ_in_the_last_digit_are_different(cluster: StoreDriver) -> None:
    """cjson writes fourteen digits, so it would change a number above 10^15."""
    token = assigned(cluster)
    assert len(str(token)) == 16

    assert cluster.claim("x", token + 1).refused == "superseded"
    assert cluster.claim("x", token - 1).refused == "superseded"
    assert cluster.claim("x", token).token == token


def test_a_claim_for_a_daemon_on_another_node_or_none_is_refused(cluster: StoreDriver) -> None:
    token = assigned(cluster)
    cluster.join(N2)
    before = cluster.contents()

    assert cluster.claim("x", token, node=N2).refused == "not on this node"
    assert cluster.claim("unknown", token).refused == "not on this node"
    assert cluster.contents() == before


@pytest.mark.parametrize("change", ["stop", "forget", "recall"])
def test_a_claim_for_a_stopped_forgotten_or_recalled_daemon_is_refused(cluster: StoreDriver, change: str) -> None:
    token = assigned(cluster)
    if change == "stop":
        cluster.desire("x", "stop")
    elif change == "forget":
        cluster.forget("x")
    else:
        cluster.recall(cluster.depose(), "x")
    before = cluster.contents()

    assert cluster.claim("x", token).refused == "not wanted"
    assert cluster.contents() == before


def test_a_claim_returns_the_newest_spec_even_of_another_launcher(cluster: StoreDriver) -> None:
    token = assigned(cluster)
    newer = [(DaemonName("x"), LauncherName("poll"), "[[1], {}]")]
    cluster.run(specs.record(cluster.keys, newer, mode="replace"))

    claim = cluster.claim("x", token)

    assert (claim.launcher, claim.arguments, claim.version) == ("poll", "[[1], {}]", cluster.spec("x")["version"])
    assert cluster.entry("x")["launcher"] == "poll"
    assert cluster.entry("x")["version"] == claim.version


@pytest.mark.parametrize("fence", ["another incarnation", "left", "lease ended"])
def test_a_claim_of_a_fenced_node_is_refused(cluster: StoreDriver, fence: str) -> None:
    token = assigned(cluster)
    if fence == "another incarnation":
        cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))
    elif fence == "left":
        cluster.client.hdel(cluster.keys.nodes, N1)
        cluster.client.zrem(cluster.keys.leases, N1)
    else:
        cluster.end_lease()
    before = cluster.contents()

    with pytest.raises(LeaseLost, match="incarnation i1 is fenced and cannot claim daemons"):
        cluster.claim("x", token)

    assert cluster.contents() == before
    cluster.join(incarnation=I2 if fence == "another incarnation" else I1)


def test_a_new_incarnation_claims_its_predecessors_daemons_under_new_tokens(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")
    cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))

    claim = cluster.claim("x", tokens["x"], incarnation=I2)

    assert claim.token > tokens["x"]
    assert cluster.entry("x")["incarnation"] == I2
    assert not cluster.release("x", tokens["x"])


def test_a_report_is_recorded(cluster: StoreDriver) -> None:
    token = assigned(cluster)
    cluster.claim("x", token)
    before = cluster.now_ms()

    assert cluster.report("x", token, pid=42, restarts=3)

    entry = cluster.entry("x")
    assert (entry["status"], entry["pid"], entry["restarts"]) == ("running", 42, 3)
    assert before <= entry["started_ms"] <= cluster.now_ms()
    assert (cluster.last().event, cluster.last().items) == ("report", (("x", str(token), "running"),))


def test_a_daemon_in_back_off_has_no_start_time(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")

    assert cluster.report("x", tokens["x"], DaemonStatus.BACKOFF, error="ValueError: no", restarts=1)

    assert cluster.entry("x")["status"] == "backoff"
    assert cluster.entry("x")["error"] == "ValueError: no"
    assert "started_ms" not in cluster.entry("x")


def test_an_error_with_invalid_characters_is_reported_with_replacements(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")

    assert cluster.report("x", tokens["x"], DaemonStatus.BACKOFF, error="no file \udcff.log")

    assert cluster.entry("x")["error"] == "no file ?.log"


def test_a_report_for_another_token_or_a_recalled_daemon_is_refused(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x", "y")
    cluster.recall(epoch, "y")
    before = cluster.contents()

    assert not cluster.report("x", tokens["x"] + 1)
    assert not cluster.report("y", tokens["y"])
    assert not cluster.report("unknown", tokens["x"])
    assert cluster.contents() == before


def test_a_report_of_a_fenced_node_is_refused(cluster: StoreDriver) -> None:
    """Attacks invariant 3."""
    _, tokens = cluster.started("x")
    cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))
    before = cluster.contents()

    with pytest.raises(LeaseLost, match="cannot report daemons"):
        cluster.report("x", tokens["x"])

    assert cluster.contents() == before


def test_a_released_daemon_is_on_no_node_and_keeps_its_history(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")

    assert cluster.release("x", tokens["x"], Outcome.FAILED, restarts=4, error="boom")

    entry = cluster.entry("x")
    assert (entry["status"], entry["restarts"], entry["error"]) == ("pending", 4, "boom")
    assert entry["token"] == str(tokens["x"])
    assert not {"node", "incarnation", "pid", "started_ms"} & set(entry)
    assert cluster.held() == set()
    assert (cluster.last().event, cluster.last().items) == ("release", (("x", str(tokens["x"]), "failed"),))


def test_releasing_twice_is_no_error(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")
    cluster.release("x", tokens["x"])
    before = cluster.contents()

    assert not cluster.release("x", tokens["x"])
    assert cluster.contents() == before


@pytest.mark.parametrize("wanted", [True, False])
def test_a_daemon_twice_in_one_batch_is_released_once(cluster: StoreDriver, *, wanted: bool) -> None:
    _, tokens = cluster.started("x")
    if not wanted:
        cluster.forget("x")
    item = runs.Release(name=DaemonName("x"), token=tokens["x"], outcome=Outcome.STOPPED, restarts=0)

    assert cluster.run(book.release(cluster.keys, N1, [item, item])) == [True, False]
    assert len(cluster.last().items) == 1
    assert cluster.held() == set()


def test_a_release_for_another_token_or_node_is_refused(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")
    newer = cluster.claim("x", tokens["x"]).token
    cluster.join(N2)
    before = cluster.contents()

    assert not cluster.release("x", tokens["x"])
    assert not cluster.release("x", newer, node=N2)
    assert not cluster.release("unknown", newer)
    assert cluster.contents() == before


@pytest.mark.parametrize(
    ("outcome", "desired"), [(Outcome.STOPPED, "running"), (Outcome.REFUSED, "running"), (Outcome.FINISHED, "stopped")]
)
def test_only_the_outcome_finished_stops_a_daemon(cluster: StoreDriver, outcome: Outcome, desired: str) -> None:
    _, tokens = cluster.started("x")

    cluster.release("x", tokens["x"], outcome)

    assert cluster.spec("x")["desired"] == desired
    assert cluster.entry("x")["status"] == ("stopped" if desired == "stopped" else "pending")


@pytest.mark.parametrize("change", ["replace", "restart"])
def test_a_finished_run_does_not_stop_a_newer_version(cluster: StoreDriver, change: str) -> None:
    _, tokens = cluster.started("x")
    if change == "replace":
        cluster.want("x", mode="replace", arguments="[[1], {}]")
    else:
        cluster.desire("x", "restart")

    assert cluster.release("x", tokens["x"], Outcome.FINISHED)

    assert cluster.spec("x")["desired"] == "running"
    assert cluster.entry("x")["status"] == "pending"


def test_the_daemons_of_a_node_are_read_with_its_generation(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x", "y")

    held = cluster.run(assignments.page(cluster.keys, N1))

    assert held.generation == cluster.generation()
    assert {name: entry.token for name, entry in held.rows.items()} == tokens
    assert cluster.run(assignments.page(cluster.keys, N2)) == assignments.Holdings(0, {}, "0")


def test_a_refused_claim_removes_a_stale_name_from_the_nodes_daemons(cluster: StoreDriver) -> None:
    """After a restart with old data, a stale name in the set would keep the node from leaving."""
    _, tokens = cluster.started("x")
    cluster.join(N2)
    cluster.client.sadd(cluster.keys.held(N2), "x")

    assert cluster.claim("x", tokens["x"], node=N2).refused == "not on this node"

    assert cluster.held(N2) == set()
    assert cluster.held(N1) == {"x"}
    assert cluster.run(lease.leave(cluster.keys, N2, I1)) == 0


def test_reading_a_nodes_daemons_removes_stale_names(cluster: StoreDriver) -> None:
    """After a fail-over to a replica without the last writes, a stale name would keep the node from leaving."""
    cluster.started("x")
    cluster.join(N2)
    cluster.client.sadd(cluster.keys.held(N2), "x", "unknown")

    assert cluster.run(assignments.page(cluster.keys, N2)).rows == {}
    assert cluster.held(N2) == set()
    assert cluster.run(lease.leave(cluster.keys, N2, I1)) == 0
    assert cluster.held(N1) == {"x"}
