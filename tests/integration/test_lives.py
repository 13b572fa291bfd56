"""How runs of a daemon end, and when the next run begins."""

from functools import partial

import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

#: By each launcher's name: its policy, and where it runs. A first run ends as the argument says, a second run stays.
SOURCE = (
    EVENT_LOG
    + """
import sys
from celery_daemons import Launcher

class Doom(BaseException):
    pass

def first_life(ctx, how):
    note(ctx.name, "starts", token=ctx.token)
    if how == "stay" or (os.path.exists(f"{FOLDER}/was-{ctx.name}") and not how.startswith("always")):
        return False
    open(f"{FOLDER}/was-{ctx.name}", "w").close()
    return how.removeprefix("always ")

def end(how):
    if how == "raise":
        raise RuntimeError("broken on purpose: é \\udcff")
    if how == "doom":
        raise Doom("of its own kind")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "exit":
        sys.exit(3)
    if how == "os-exit":
        os._exit(4)
    if how == "cancel":
        raise asyncio.CancelledError

async def act_async(ctx, how):
    if how := first_life(ctx, how):
        return end(how)
    await asyncio.sleep(1000)

def act(ctx, how):
    if how := first_life(ctx, how):
        return end(how)
    ctx.stopping.wait()

class Untimely:
    def __init__(self):
        end(open(f"{FOLDER}/untimely").read())

    async def run(self, ctx):
        note(ctx.name, "starts", token=ctx.token)
        await asyncio.sleep(1000)

quick = {"backoff": 0.2, "backoff_max": 0.4, "stop_grace": 0.5}
for policy in ("permanent", "transient", "temporary"):
    daemons.register_launcher(f"{policy}-shared", Launcher(act_async, restart=policy, **quick))
    daemons.register_launcher(f"{policy}-process", Launcher(act, restart=policy, **quick))
    daemons.register_launcher(f"{policy}-thread", Launcher(act, restart=policy, isolation="thread", **quick))
daemons.register_launcher("slow", Launcher(act_async, backoff=60))
daemons.register_launcher("doomed", Launcher(act_async, max_restarts=2, backoff=0.05, backoff_max=0.4))
daemons.register_launcher("untimely", Launcher(Untimely, **quick))
"""
)

PLACES = ["shared", "process", "thread"]


shared_cluster = module_cluster(SOURCE)


def reported(cluster: IntegrationCluster, name: str, error: str) -> bool:
    """Whether the book holds this error of a daemon."""
    return error in (cluster.record(name).error or "")


def tokens(cluster: IntegrationCluster, name: str) -> list[int]:
    """The tokens of a daemon's runs, in the order of their starts."""
    return [entry["token"] for entry in cluster.events(name, "starts")]


@pytest.mark.parametrize("place", PLACES)
def test_the_restart_policy_decides_whether_a_daemon_restarts_after_a_failure_or_a_return(
    cluster: IntegrationCluster, place: str
) -> None:
    # When
    for policy in ("permanent", "transient", "temporary"):
        for how in ("raise", "return"):
            cluster.daemons.spawn(f"{policy}-{how}-{place}", f"{policy}-{place}", args=[how])

    # Then these start a second time, under a newer token
    again = [f"{what}-{place}" for what in ("permanent-raise", "permanent-return", "transient-raise")]
    for name in again:
        cluster.wait_event(name, "starts", times=2)
        cluster.wait_status(name, "running")
        first, second = tokens(cluster, name)
        assert first < second == cluster.record(name).token

    # Then the others have ended, and a failure is recorded
    final = [f"{what}-{place}" for what in ("transient-return", "temporary-raise", "temporary-return")]
    for name in final:
        cluster.wait_status(name, "stopped")
        assert cluster.record(name).desired == "stopped"
        assert len(tokens(cluster, name)) == 1
    assert (cluster.record(f"temporary-raise-{place}").error or "").startswith("RuntimeError: broken on purpose: é")
    assert cluster.record(f"temporary-return-{place}").error is None

    # When one of these is started, it begins a new run
    cluster.daemons.start(final[0])
    cluster.wait_event(final[0], "starts", times=2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("how", "reported"),
    [("doom", "Doom: of its own kind"), ("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt: ")],
)
def test_an_exception_of_any_kind_fails_the_daemon_and_no_neighbour(
    cluster: IntegrationCluster, place: str, how: str, reported: str
) -> None:
    # Given
    name = f"{how}-{place}"
    neighbours = [cluster.spawn(f"beside-{name}-{other}", f"permanent-{other}", "stay") for other in PLACES]

    # When
    cluster.daemons.spawn(name, f"transient-{place}", args=[how])

    # Then
    cluster.wait_event(name, "starts", times=2)
    cluster.wait_status(name, "running")
    assert cluster.record(name).error == reported
    assert [cluster.daemons.locate(address.name) for address in neighbours] == neighbours


def test_a_coroutine_that_cancels_itself_counts_as_failed(cluster: IntegrationCluster) -> None:
    cluster.daemons.spawn("cancels-itself", "transient-shared", args=["cancel"])

    cluster.wait_event("cancels-itself", "starts", times=2)
    cluster.wait_status("cancels-itself", "running")
    assert cluster.record("cancels-itself").error == "CancelledError: the daemon cancelled itself"


@pytest.mark.parametrize("how", ["raise", "exit", "doom"])
def test_a_class_whose_constructor_fails_is_retried_and_its_neighbours_run_on(
    cluster: IntegrationCluster, how: str
) -> None:
    # Given
    neighbour = cluster.spawn(f"beside-untimely-{how}", "permanent-shared", "stay")
    cause = cluster.project.folder / "untimely"
    cause.write_text(how)

    # When
    name = f"untimely-{how}"
    cluster.daemons.spawn(name, "untimely")

    # Then
    wait_until(lambda: cluster.record(name).restarts >= 2, within=SOON, because="it is permanent")
    assert cluster.record(name).error
    assert tokens(cluster, name) == []

    # When it can be made
    cause.write_text("well")

    # Then
    cluster.wait_event(name, "starts")
    assert cluster.daemons.locate(neighbour.name) == neighbour


def test_a_process_that_exits_without_a_report_is_restarted(cluster: IntegrationCluster) -> None:
    # When: without a report, by any exit status
    cluster.daemons.spawn("vanishes", "transient-process", args=["os-exit"])

    # Then
    cluster.wait_event("vanishes", "starts", times=2)
    cluster.wait_status("vanishes", "running")
    assert cluster.record("vanishes").restarts == 1


def test_a_coroutine_that_ends_its_host_restarts_each_neighbour_once(cluster: IntegrationCluster) -> None:
    # Given
    neighbours = [cluster.spawn(f"beside-vanishing-{n}", "permanent-shared", "stay") for n in range(4)]

    # When
    cluster.daemons.spawn("vanishing", "permanent-shared", args=["os-exit"])

    # Then
    for address in neighbours:
        cluster.wait_restarted(address)
        cluster.wait_event(address.name, "starts", times=2)
    cluster.wait_event("vanishing", "starts", times=2)
    assert [len(tokens(cluster, address.name)) for address in neighbours] == [2] * 4


def test_a_daemon_in_backoff_reports_its_status_and_its_last_error(cluster: IntegrationCluster) -> None:
    # When
    cluster.daemons.spawn("slow", "slow", args=["always raise"])

    # Then
    cluster.wait_status("slow", "backoff")
    found = cluster.record("slow")
    assert (found.error or "").startswith("RuntimeError: broken on purpose")
    assert (found.node, found.desired) == ("w1@test", "running")

    # When it is stopped while it waits
    cluster.daemons.stop("slow", wait=SOON)

    # Then
    assert cluster.record("slow").status == "stopped"


def test_a_daemon_that_always_fails_is_failed_but_still_retried(cluster: IntegrationCluster) -> None:
    """A failing daemon is neither given up forever nor restarted in a hot loop."""
    # When
    cluster.daemons.spawn("doomed", "doomed", args=["always raise"])

    # Then
    cluster.wait_status("doomed", "failed")
    assert cluster.record("doomed").restarts >= 3
    lives = len(tokens(cluster, "doomed"))
    cluster.wait_event("doomed", "starts", times=lives + 2)

    # Then its tokens only ever grew
    seen = tokens(cluster, "doomed")
    assert seen == sorted(set(seen))


def test_unknown_arguments_fail_the_daemon_and_not_its_host(cluster: IntegrationCluster) -> None:
    # Given
    neighbour = cluster.spawn("beside-wrong", "permanent-shared", "stay")

    # When specs are recorded by code with another signature, as during a deploy
    for place in PLACES:
        cluster.daemons.cluster.want(f"wrong-{place}", f"permanent-{place}", '[[], {"no_such": 1}]')

    # Then
    for place in PLACES:
        wait_until(
            partial(reported, cluster, f"wrong-{place}", "unexpected keyword argument"), within=SOON, because="it fails"
        )
    assert cluster.daemons.locate(neighbour.name) == neighbour
