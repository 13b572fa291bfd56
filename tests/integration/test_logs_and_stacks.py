"""``logs`` and ``stack``: what a daemon has logged and where its code is, whatever state the daemon is in."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
import logging, sys
library = logging.getLogger("somelib.inner")

def helper_that_sleeps(seconds):
    time.sleep(seconds)

@daemons.launcher
async def talker(ctx, blocks=0):
    ctx.log.info("speaks", extra={"token": "mine"})
    library.warning("library of %s", ctx.name)
    await asyncio.to_thread(library.warning, "from a thread")
    print("printed")
    note(ctx.name, "spoke")
    if blocks:
        helper_that_sleeps(blocks)
    await inner_wait(ctx)

async def inner_wait(ctx):
    await asyncio.sleep(1000)

@daemons.launcher
def alone(ctx):
    ctx.log.info("speaks")
    library.warning("library of %s", ctx.name)
    thread = threading.Thread(target=library.warning, args=("from a thread",))
    thread.start()
    thread.join()
    print("printed")
    print("to stderr", file=sys.stderr)
    note(ctx.name, "spoke")
    ctx.stopping.wait()

@daemons.launcher(isolation="thread")
def threaded(ctx):
    ctx.log.info("speaks")
    note(ctx.name, "spoke")
    ctx.stopping.wait()

@daemons.launcher(backoff=0.1)
def killed(ctx):
    ctx.log.info("run %d", ctx.token)
    note(ctx.name, "spoke")
    if not os.path.exists(FOLDER + "/killed"):
        open(FOLDER + "/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    ctx.stopping.wait()

@daemons.launcher
async def ticker(ctx):
    count = 0
    while True:
        count += 1
        ctx.log.info("tick %d at %f", count, time.time())
        await asyncio.sleep(0.1)
"""
)

shared_cluster = module_cluster(SOURCE)


def logged(cluster: IntegrationCluster, name: str) -> list[dict[str, Any]]:
    """Return the lines of a daemon."""
    document: list[dict[str, Any]] = cluster.project.celery_json("daemons", "logs", name)
    return document


@pytest.mark.parametrize("launcher", ["talker", "alone", "threaded"])
def test_logs_show_what_a_daemon_and_its_libraries_log_and_print(cluster: IntegrationCluster, launcher: str) -> None:
    # Given
    address = cluster.spawn(f"logs.{launcher}", launcher)
    cluster.wait_event(f"logs.{launcher}", "spoke")

    # When
    lines = logged(cluster, f"logs.{launcher}")

    # Then
    expected = ["speaks"]
    if launcher != "threaded":
        expected += [f"library of logs.{launcher}", "from a thread", "printed"]
    assert [line["message"] for line in lines if line["message"] in expected] == expected
    assert {line["token"] for line in lines} == {address.token}
    assert lines[0]["logger"] == f"daemons.{launcher}"
    assert lines[0]["node"] == address.node
