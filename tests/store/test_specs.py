"""Specs: recording, stopping, starting, restarting, moving and forgetting; results of scans; the rebalancing pause."""

import pytest

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName
from celery_daemons.errors import LeaseLost
from celery_daemons.store import queries, specs
from tests.store.driver import ARGUMENTS, N1, TAIL, StoreDriver, names


def test_a_spec_is_recorded(cluster: StoreDriver) -> None:
    assert cluster.want("x") == ["new"]

    spec = cluster.spec("x")
    assert (spec["launcher"], spec["arguments"], spec["desired"]) == (TAIL, ARGUMENTS, "running")
    assert (cluster.last().event, cluster.last().cause) == ("want", "spawn")
    assert cluster.last().items == (("x", spec["version"], "new"),)


def test_the_same_spec_again_changes_nothing(cluster: StoreDriver) -> None:
    cluster.want("x")
    before = cluster.contents()

    assert cluster.want("x") == ["same"]
    assert cluster.want("x", mode="replace") == ["same"]
    assert cluster.contents() == before


def test_a_different_spec_under_the_same_name_is_a_conflict(cluster: StoreDriver) -> None:
    cluster.want("x")
    before = cluster.contents()

    assert cluster.want("x", arguments="[[1], {}]") == ["conflict"]
    assert cluster.contents() == before


def test_a_different_spec_replaces_the_first_in_mode_replace(cluster: StoreDriver) -> None:
    cluster.want("x")
    version = cluster.spec("x")["version"]

    assert cluster.want("x", mode="replace", arguments="[[1], {}]") == ["replaced"]

    assert cluster.spec("x")["arguments"] == "[[1], {}]"
    assert int(cluster.spec("x")["version"]) > int(version)


def test_a_scan_replaces_specs_of_its_own_launcher_only(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.want("x")
    own = [(DaemonName("x"), TAIL, "[[1], {}]")]
    other_launcher = [(DaemonName("x"), LauncherName("poll"), ARGUMENTS)]

    assert cluster.run(specs.record(cluster.keys, own, mode="scan", epoch=epoch)) == ["replaced"]
    assert cluster.run(specs.record(cluster.keys, other_launcher, mode="scan", epoch=epoch)) == ["conflict"]
    assert cluster.spec("x")["launcher"] == TAIL


def test_a_deposed_monitors_scan_changes_nothing(cluster: StoreDriver) -> None:
    old = cluster.lead()
    cluster.want("x")
    cluster.depose()
    before = cluster.contents()

    with pytest.raises(LeaseLost):
        cluster.run(specs.record(cluster.keys, [(DaemonName("y"), TAIL, ARGUMENTS)], mode="scan", epoch=old))
    with pytest.raises(LeaseLost):
        cluster.run(specs.forget(cluster.keys, names(["x"]), cause="pruned", epoch=old))
    assert not cluster.run(specs.scanned(cluster.keys, old, TAIL, listed=1, took_ms=1, error=None))
    assert cluster.contents() == before


@pytest.mark.parametrize("mode", ["spawn", "replace", "scan"])
def test_a_stopped_daemon_stays_stopped_in_every_mode(cluster: StoreDriver, mode: specs.RecordMode) -> None:
    """Celery #4168: a stopped task comes back with the next restart."""
    epoch = cluster.lead()
    cluster.want("x")
    cluster.desire("x", "stop")

    for arguments in (ARGUMENTS, "[[1], {}]"):
        items = [(DaemonName("x"), TAIL, arguments)]
        cluster.run(specs.record(cluster.keys, items, mode=mode, epoch=epoch if mode == "scan" else None))

    assert cluster.spec("x")["desired"] == "stopped"


def test_stop_and_start_change_the_desired_state(cluster: StoreDriver) -> None:
    cluster.want("x")
    version = cluster.spec("x")["version"]

    assert cluster.desire("x", "stop")
    assert cluster.spec("x")["desired"] == "stopped"
    assert cluster.last().event == "stop"
    assert cluster.desire("x", "start")
    assert cluster.spec("x")["desired"] == "running"
    assert cluster.spec("x")["version"] == version
    assert cluster.last().items[0][0] == "x"


def test_a_restart_is_a_new_version_of_the_same_spec(cluster: StoreDriver) -> None:
    cluster.want("x")
    before = cluster.spec("x")

    assert cluster.desire("x", "restart")

    after = cluster.spec("x")
    assert int(after.pop("version")) > int(before.pop("version"))
    assert after == before


@pytest.mark.parametrize("action", ["stop", "start", "restart"])
def test_an_unknown_daemon_cannot_be_changed(cluster: StoreDriver, action: str) -> None:
    cluster.want("x")
    before = cluster.contents()

    assert not cluster.desire("y", action)
    assert cluster.contents() == before


def test_forgetting_a_daemon_on_no_node_deletes_its_entry(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])

    assert cluster.forget("x", "y") == 1

    assert cluster.spec("x") is None
    assert cluster.entry("x") is None
    assert cluster.last().event == "forget"
    assert [name for name, *_ in cluster.last().items] == ["x"]


def test_a_forgotten_daemon_keeps_its_entry_until_its_node_releases_it(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")

    cluster.forget("x")
    assert cluster.entry("x")["node"] == N1
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])

    assert cluster.entry("x") is None
    assert cluster.held() == set()


def test_forgetting_twice_is_no_error(cluster: StoreDriver) -> None:
    cluster.want("x")

    assert cluster.forget("x") == 1
    before = cluster.contents()
    assert cluster.forget("x") == 0
    assert cluster.contents() == before


def test_the_result_of_a_scan_is_stored_and_only_a_failure_is_journalled(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    entries = len(cluster.events())

    assert cluster.run(specs.scanned(cluster.keys, epoch, TAIL, listed=3, took_ms=12, error=None))
    assert len(cluster.events()) == entries
    assert cluster.run(specs.scanned(cluster.keys, epoch, TAIL, listed=0, took_ms=5, error="OSError: no"))

    assert (cluster.last().event, cluster.last().cause) == ("scan-failed", "OSError: no")
    assert b"OSError: no" in cluster.client.hget(cluster.keys.scans, TAIL)


def test_a_scan_result_without_a_leader_is_refused(cluster: StoreDriver) -> None:
    assert not cluster.run(specs.scanned(cluster.keys, Epoch(1), TAIL, listed=3, took_ms=12, error=None))
    assert cluster.contents() == {}


def test_a_move_is_a_new_version_with_a_target_that_the_next_restart_clears(cluster: StoreDriver) -> None:
    cluster.want("x")
    before = cluster.spec("x")

    assert cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", target=N1))

    moved = cluster.spec("x")
    assert int(moved["version"]) > int(before["version"])
    assert moved["target"] == N1
    assert (cluster.last().event, cluster.last().node) == ("move", N1)
    cluster.run(specs.desire(cluster.keys, DaemonName("x"), "move", avoid=N1))
    assert (cluster.spec("x").get("target"), cluster.spec("x")["avoid"]) == (None, N1)
    cluster.desire("x", "restart")
    assert "avoid" not in cluster.spec("x")


def test_the_rebalancing_pause_outlasts_a_change_of_leader(cluster: StoreDriver) -> None:
    cluster.join()

    cluster.run(specs.pause_rebalance(cluster.keys, paused=True))
    assert cluster.run(queries.overview(cluster.keys)).paused
    assert (cluster.last().event, cluster.last().cause) == ("rebalance", "paused")

    cluster.run(specs.pause_rebalance(cluster.keys, paused=False))
    assert not cluster.run(queries.overview(cluster.keys)).paused
