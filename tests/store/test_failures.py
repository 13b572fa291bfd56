"""What Redis stores about failures and moves: the node to avoid, the traceback, the version."""

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.store import book, queries, specs
from tests.store.driver import N1, N2, StoreDriver


def test_a_node_that_gave_a_daemon_up_is_avoided_until_another_node_releases_the_daemon(
    cluster: StoreDriver,
) -> None:
    epoch, tokens = cluster.started("x")

    cluster.release("x", tokens["x"], Outcome.EXHAUSTED)
    cluster.join(N2)
    dispatch = cluster.assign(epoch, "x", node=N2)

    assert isinstance(dispatch, book.Dispatch)
    (token,) = dispatch.tokens
    assert cluster.spec("x")["desired"] == "running"
    assert cluster.entry("x")["avoid"] == N1
    assert cluster.claim("x", token, node=N2).avoid == N1
    assert cluster.release("x", token, node=N2)
    assert "avoid" not in cluster.entry("x")


def test_a_node_that_gave_a_daemon_up_is_avoided_even_after_another_run_there(cluster: StoreDriver) -> None:
    """No other node fitted then. When another node joins, the daemon is recalled so that the other node can try."""
    epoch, tokens = cluster.started("x")
    cluster.release("x", tokens["x"], Outcome.EXHAUSTED)
    dispatch = cluster.assign(epoch, "x")
    assert isinstance(dispatch, book.Dispatch)
    cluster.claim("x", dispatch.tokens[0])

    cluster.release("x", dispatch.tokens[0])

    assert cluster.entry("x")["avoid"] == N1


def test_a_traceback_is_stored_beside_the_entry_and_deleted_with_the_entry(cluster: StoreDriver) -> None:
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


def test_a_restart_on_the_old_node_does_not_fulfil_a_move(cluster: StoreDriver) -> None:
    """A daemon that crashes during a move restarts on the old node, and must still be recalled from there."""
    _, tokens = cluster.started("x")
    version = cluster.entry("x")["version"]
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))

    again = cluster.claim("x", tokens["x"])

    assert again.token > tokens["x"]
    assert again.version == cluster.entry("x")["version"] == version != cluster.spec("x")["version"]


def test_an_earlier_assignment_does_not_fulfil_a_move(cluster: StoreDriver) -> None:
    """The move is recorded between the assignment and its claim; the monitor sees the move only after the claim."""
    cluster.join()
    cluster.want("x")
    dispatch = cluster.assign(cluster.lead(), "x")
    assert isinstance(dispatch, book.Dispatch)
    version = cluster.entry("x")["version"]
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))

    claim = cluster.claim("x", dispatch.tokens[0])

    assert claim.version == cluster.entry("x")["version"] == version != cluster.spec("x")["version"]


def test_a_start_on_the_target_node_fulfils_a_move(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.join(N2)
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N2))
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    dispatch = cluster.assign(epoch, "x", node=N2)
    assert isinstance(dispatch, book.Dispatch)

    claim = cluster.claim("x", dispatch.tokens[0], node=N2)

    assert claim.version == cluster.spec("x")["version"]
