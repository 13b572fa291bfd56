"""Everything runs as a Redis user that may do only what docs/how-to/least-privilege.md says."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.conftest import NewProject, NewServer, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE, ROOT, Project
from tests.support.recorder import RECORDED_LAUNCHERS
from tests.support.waiting import wait_until

SOURCE = (
    PRELUDE.replace("broker=BROKER_URL", 'broker=os.environ["BROKER"]')
    + RECORDED_LAUNCHERS
    + "\n\n@watch.recovery_scanner\ndef one():\n    yield watch.spec('listed')\n"
)


def documented_rules(page: Path) -> list[str]:
    """The rules of the user that the page shows, as the arguments of ACL SETUSER."""
    found = re.search(r"^ACL SETUSER daemons on >\S+ (.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, "docs/how-to/least-privilege.md shows no ACL SETUSER daemons"
    return found[1].replace("\\\n", " ").split()


def test_everything_works_under_the_documented_acl_and_nothing_else_is_allowed(
    new_server: NewServer, new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    # Given a user with the documented rules on the namespace of this test, and a broker elsewhere
    server, broker = new_server(), new_server()
    url = server.url.replace("redis://", "redis://daemons:s3cret@")
    project = new_project(SOURCE, broker_url=url, settings={**QUICK, "redis_url": url})
    page = ROOT / "docs/how-to/least-privilege.md"
    rules = [rule.replace("celery-daemons.proj", project.namespace) for rule in documented_rules(page)]
    server.client().execute_command("ACL", "SETUSER", "daemons", "on", ">s3cret", *rules)
    client = client_of(project)

    # When
    worker = new_worker(project, "w1", concurrency=1, wait=False, env={"BROKER": broker.url})
    client.wait_running("listed", within=SOON)
    client.want("spawned", "alone", "[[],{}]")
    client.wait_running("spawned", within=SOON)
    client.restart("spawned", wait=SOON)
    client.stop("spawned", wait=SOON)
    client.forget("spawned")
    client.rescan()
    client.pause_rebalance()
    client.ask_rebalance()
    client.pause_rebalance(paused=False)
    assert client.trace("listed") is None
    assert set(client.locate_many(["listed", "spawned"])) == {"listed"}
    client.drain("w1@test")
    client.uncordon("w1@test")
    assert client.status().leader is not None
    assert [node.name for node in client.nodes()] == ["w1@test"]
    assert worker.stop() == 0
    wait_until(lambda: client.nodes() == [], within=SOON, because="it has left")

    # Then nothing was denied on the way
    denied = server.client().execute_command("ACL", "LOG")
    assert denied == []
