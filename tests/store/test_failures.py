"""What Redis remembers of a daemon that failed: where, and the traceback."""

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.store import queries, specs
from tests.store.driver import N1, N2, StoreDriver


def test_a_daemon_that_failed_here_too_often_shuns_this_node_until_it_is_given_back_otherwise(
    cluster: StoreDriver,
) -> None:
    epoch, tokens = cluster.started("x")

    cluster.release("x", tokens["x"], Outcome.EXHAUSTED)
    cluster.join(N2)
    dispatch = cluster.assign(epoch, "x", node=N2)

    assert dispatch is not None
    (token,) = dispatch.tokens
    assert cluster.spec("x")["desired"] == "running"
    assert cluster.entry("x")["avoid"] == N1
    assert cluster.claim("x", token, node=N2).avoid == N1
    assert cluster.release("x", token, node=N2)
    assert "avoid" not in cluster.entry("x")


def test_a_node_that_gave_a_daemon_up_is_shunned_also_after_it_had_it_again(cluster: StoreDriver) -> None:
    """There was no other node then; now there is one, and the daemon is recalled for it to try."""
    epoch, tokens = cluster.started("x")
    cluster.release("x", tokens["x"], Outcome.EXHAUSTED)
    dispatch = cluster.assign(epoch, "x")
    assert dispatch is not None
    cluster.claim("x", dispatch.tokens[0])

    cluster.release("x", dispatch.tokens[0])

    assert cluster.entry("x")["avoid"] == N1


def test_a_traceback_is_kept_apart_from_the_entry_and_goes_with_it(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x", "y")

    cluster.report("x", tokens["x"], DaemonStatus.BACKOFF, error="ValueError: 1", trace="Traceback …\nValueError: 1")
    cluster.release("y", tokens["y"], Outcome.EXHAUSTED, error="E", trace="of y")

    assert queries.trace(cluster.store, DaemonName("x")) == "Traceback …\nValueError: 1"
    assert "trace" not in cluster.entry("x")
    assert queries.trace(cluster.store, DaemonName("y")) == "of y"
    cluster.forget("x", "y")
    assert queries.trace(cluster.store, DaemonName("y")) is None
    cluster.release("x", tokens["x"])
    assert queries.trace(cluster.store, DaemonName("x")) is None


def test_a_start_of_its_own_does_not_fulfil_a_wish_to_be_elsewhere(cluster: StoreDriver) -> None:
    """A daemon that crashes just when it shall move starts again where it is: it has to be recalled from there all the
    same."""
    _, tokens = cluster.started("x")
    version = cluster.entry("x")["version"]
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))

    again = cluster.claim("x", tokens["x"])

    assert again.token > tokens["x"]
    assert again.version == cluster.entry("x")["version"] == version != cluster.spec("x")["version"]


def test_nor_does_a_start_that_was_assigned_before(cluster: StoreDriver) -> None:
    """The wish comes between the assignment and its claim, and the monitor looks only after that."""
    cluster.join()
    cluster.want("x")
    dispatch = cluster.assign(cluster.lead(), "x")
    assert dispatch is not None
    version = cluster.entry("x")["version"]
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))

    claim = cluster.claim("x", dispatch.tokens[0])

    assert claim.version == cluster.entry("x")["version"] == version != cluster.spec("x")["version"]


def test_where_it_was_moved_to_the_wish_is_fulfilled(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.join(N2)
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    dispatch = cluster.assign(epoch, "x", node=N2)
    assert dispatch is not None

    claim = cluster.claim("x", dispatch.tokens[0], node=N2)

    assert claim.version == cluster.spec("x")["version"]
