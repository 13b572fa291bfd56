"""What Redis remembers of a daemon that failed: where, and the traceback."""

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.store import reading
from tests.store.cluster import N1, N2, Cluster


def test_a_daemon_that_failed_here_too_often_shuns_this_node_until_it_is_given_back_otherwise(
    cluster: Cluster,
) -> None:
    epoch, tokens = cluster.started("x")

    cluster.release("x", tokens["x"], Outcome.EXHAUSTED)
    cluster.join(N2)
    dispatch = cluster.assign(epoch, "x", node=N2)

    assert dispatch is not None
    (token,) = dispatch.tokens
    assert cluster.spec("x")["desired"] == "running"
    assert cluster.entry("x")["shun"] == N1
    assert cluster.claim("x", token, node=N2).shun == N1
    assert cluster.release("x", token, node=N2)
    assert "shun" not in cluster.entry("x")


def test_a_traceback_is_kept_apart_from_the_entry_and_goes_with_it(cluster: Cluster) -> None:
    _, tokens = cluster.started("x", "y")

    cluster.report("x", tokens["x"], DaemonStatus.BACKOFF, error="ValueError: 1", trace="Traceback …\nValueError: 1")
    cluster.release("y", tokens["y"], Outcome.EXHAUSTED, error="E", trace="of y")

    assert reading.trace(cluster.store, DaemonName("x")) == "Traceback …\nValueError: 1"
    assert "trace" not in cluster.entry("x")
    assert reading.trace(cluster.store, DaemonName("y")) == "of y"
    cluster.forget("x", "y")
    assert reading.trace(cluster.store, DaemonName("y")) is None
    cluster.release("x", tokens["x"])
    assert reading.trace(cluster.store, DaemonName("x")) is None
