"""Wrong input is refused with its name and the remedy, and everything else continues."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.result import allow_join_result
from kombu import Connection

from celery_daemons import AddressBook, Daemons, Launcher
from celery_daemons.errors import (
    ConfigurationError,
    InvalidName,
    LayoutMismatch,
    StoreUnavailable,
    UnknownLauncher,
)
from celery_daemons.wire.spawn_task import spawn_queue_name
from tests.conftest import NewProject, NewServer, NewWorker
from tests.integration.conftest import QUICK, SOON, Client
from tests.support.projects import PRELUDE, Project
from tests.support.recorder import RECORDED_LAUNCHERS
from tests.support.servers import Server
from tests.support.waiting import wait_until

SOURCE = PRELUDE + RECORDED_LAUNCHERS + "\n\n@watch.recovery_scanner\ndef one():\n    yield watch.spec('listed')\n"


async def nothing(ctx: Any) -> None:
    """A daemon's code."""


def daemons_at(url: str, **settings: Any) -> Daemons:
    return Daemons(Celery("proj", broker=url), **settings)


def test_an_invalid_registration_is_refused_with_the_reason() -> None:
    daemons = daemons_at("redis://localhost:1/0")
    daemons.register_launcher("taken", Launcher(nothing))
    wrong: list[tuple[str, Any, type[Exception], str]] = [
        ("taken", Launcher(nothing), ConfigurationError, "launcher taken is registered already"),
        ("", Launcher(nothing), InvalidName, "launcher name '' is not a valid name"),
        ("two words", Launcher(nothing), InvalidName, "'two words'"),
        ("value", Launcher(42), ConfigurationError, "launcher value: factory 42 is not callable"),  # type: ignore[arg-type]
        ("bare", nothing, ConfigurationError, "is not a Launcher; write Launcher"),
        ("empty", Launcher(type("Empty", (), {})), ConfigurationError, "class Empty has no method run"),
        (
            "option",
            Launcher(nothing, bakoff=1),
            ConfigurationError,
            "there is no option bakoff; the options are backoff",
        ),
        ("kind", Launcher(nothing, isolation="cell"), ConfigurationError, "isolation='cell' must be one of shared"),
        ("plain", Launcher(print, isolation="shared"), ConfigurationError, "needs an async def"),
        ("thread", Launcher(nothing, isolation="thread"), ConfigurationError, "needs a def"),
        ("grace", Launcher(nothing, stop_grace=-1), ConfigurationError, "stop_grace=-1 must be a number above 0"),
        ("scan", Launcher(nothing, recovery_scanner="x"), ConfigurationError, "recovery_scanner 'x' is not callable"),  # type: ignore[arg-type]
    ]
    for name, launcher, error, reason in wrong:
        with pytest.raises(error) as raised:
            daemons.register_launcher(name, launcher)
        assert reason in str(raised.value)
    assert list(daemons.launchers) == ["taken"]


def test_a_second_daemons_object_on_one_app_is_refused_and_the_first_is_returned() -> None:
    app = Celery("proj", broker="redis://localhost:1/0")
    daemons = Daemons(app)
    with pytest.raises(ConfigurationError, match=r"already has a Daemons; Daemons\.of\(app\) returns it"):
        Daemons(app)
    assert Daemons.of(app) is daemons
    with pytest.raises(ConfigurationError, match="has no Daemons"):
        Daemons.of(Celery("other"))


def test_invalid_calls_are_refused_before_any_request_to_redis() -> None:
    daemons = daemons_at("redis://localhost:1/0")
    launcher = daemons.register_launcher("plain", Launcher(nothing))
    for args, kwargs, reason in (
        ("ab", None, "args is of type str; give a list"),
        (5, None, "args is of type int; give a list"),
        ((), [1], "kwargs is of type list; give a dictionary"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            daemons.spawn("one", launcher, args=args, kwargs=kwargs)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="launcher plain has no recovery scanner"):
        daemons.rescan(launcher)


def test_the_error_for_a_wrong_setting_names_the_setting_its_value_and_the_rule() -> None:
    with pytest.raises(ConfigurationError, match="there is no setting 'leese'"):
        daemons_at("redis://localhost:1/0", leese=1)
    with pytest.raises(ConfigurationError, match=r"daemons_lease_ttl: 2\.0 must be at least 3"):
        _ = daemons_at("redis://localhost:1/0", lease_ttl=2).settings
    with pytest.raises(ConfigurationError, match="daemons_redis_url is not set"):
        _ = daemons_at("amqp://localhost").settings
    app = Celery("proj", broker="redis://localhost:1/0")
    app.conf.daemons_vnodes = "many"
    with pytest.raises(ConfigurationError, match="daemons_vnodes: 'many' is not a whole number"):
        _ = Daemons(app).settings


def test_a_worker_with_a_wrong_setting_does_not_start_and_names_the_setting(
    new_project: NewProject, new_worker: NewWorker
) -> None:
    """An error that is raised inside a signal handler of Celery would be swallowed."""
    project = new_project(SOURCE, settings={"lease_ttl": 1, "heartbeat_interval": 1})
    worker = new_worker(project, "w1", wait=False)
    wait_until(lambda: not worker.running, within=SOON, because="it ends by itself")
    assert worker.output.endswith(
        "\nError: the worker does not start: daemons_lease_ttl: 1.0 must be at least 3 × daemons_heartbeat_interval "
        "(1.0), or one late heartbeat loses the lease (with --no-daemons it starts as a plain worker)\n"
    )
    assert "Traceback" not in worker.output


def test_a_worker_with_an_invalid_label_does_not_start_and_names_the_label(
    new_project: NewProject, new_worker: NewWorker
) -> None:
    worker = new_worker(new_project(SOURCE), "w1", wait=False, options=["--daemon-labels", "ssd,two words"])
    wait_until(lambda: not worker.running, within=SOON, because="it ends by itself")
    assert "\nError: the worker does not start: node label 'two words' is not a valid name" in worker.output
    assert "Traceback" not in worker.output


def test_a_program_that_creates_a_worker_by_itself_gets_the_error_of_a_wrong_setting() -> None:
    daemons = daemons_at("redis://localhost:1/0", lease_ttl=1)
    # Celery notes in the process that a worker is there, and then refuses to wait for results: undone at the end.
    with allow_join_result(), pytest.raises(ConfigurationError, match=r"daemons_lease_ttl: 1\.0 must be at least 3"):
        daemons.app.Worker(hostname="w1@test", pool="solo")


def test_a_worker_reports_an_app_that_no_other_process_can_import(
    new_project: NewProject, new_worker: NewWorker
) -> None:
    source = (
        PRELUDE + "\nbox = [app]\n\n\ndef make():\n    return box[0]\n\n\ndel app\n__getattr__ = lambda name: box[0]\n"
    )
    worker = new_worker(new_project(source, settings=QUICK), "w1", wait=False)
    wait_until(lambda: not worker.running, within=SOON, because="it ends by itself")
    assert "is not a module's attribute" in worker.output
    assert "keep it as `app` in an importable module" in worker.output


def test_a_spawn_whose_arguments_cannot_be_encoded_is_refused(valkey: Server, namespace: str) -> None:
    daemons = daemons_at(valkey.url, namespace=namespace)
    daemons.register_launcher("nothing", Launcher(nothing))

    async def something(ctx: Any, number: int) -> None:
        """A daemon's code."""

    daemons_with = daemons.register_launcher("something", Launcher(something))
    with pytest.raises(UnknownLauncher, match=r"no launcher 'noting' is registered \(registered: nothing, something\)"):
        daemons.spawn("one", "noting")
    with pytest.raises(InvalidName, match="daemon name 'one, two' is not a valid name"):
        daemons.spawn("one, two", "nothing")
    with pytest.raises(InvalidName):
        daemons.spawn("x" * 201, "nothing")
    with pytest.raises(ConfigurationError, match="daemon one: its arguments do not serialise to JSON"):
        daemons.spawn("one", daemons_with, args=[object()])
    with pytest.raises(ConfigurationError, match=r"daemon one: launcher something does not take .* 'number'"):
        daemons.spawn("one", daemons_with, kwargs={"count": 1})
    assert list(daemons.list()) == []


def test_an_unsuitable_redis_server_is_reported_with_the_remedy(new_server: NewServer, namespace: str) -> None:
    # Given / When / Then one that is down
    gone = new_server()
    gone.stop()
    for locate in (
        daemons_at(gone.url, namespace=namespace).locate,
        AddressBook.connect(gone.url, namespace).__enter__,
    ):
        with pytest.raises(StoreUnavailable, match=rf"127.0.0.1:{gone.port}.*daemons_redis_url"):
            locate(*(["one"] if locate.__name__ == "locate" else []))
    # One that evicts
    evicting = new_server("maxmemory-policy allkeys-lru")
    with pytest.raises(ConfigurationError, match=r"may evict keys.*allkeys-lru.*set maxmemory-policy noeviction"):
        daemons_at(evicting.url, namespace=namespace).locate("one")
    # One with another layout, which is left alone
    other = new_server()
    redis = other.client()
    redis.hset(f"{{{namespace}}}:v1:cluster", "layout", "2")
    before = {key: redis.dump(key) for key in redis.scan_iter("*")}
    with pytest.raises(LayoutMismatch, match=r"layout v2.*supports v1"):
        daemons_at(other.url, namespace=namespace).stop("one")
    assert {key: redis.dump(key) for key in redis.scan_iter("*")} == before


def test_a_password_appears_neither_in_errors_nor_in_the_process_list(
    new_server: NewServer, new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    # Given
    server = new_server()
    server.client().config_set("requirepass", "s3cret-enough")
    url = server.url.replace("redis://", "redis://:s3cret-enough@")
    project = new_project(SOURCE, broker_url=url, settings=QUICK)
    client = client_of(project)

    # When
    worker = new_worker(project, "w1", concurrency=1, wait=False)
    client.wait_running("listed", within=SOON)

    # Then
    for process in worker.tree():
        assert "s3cret" not in " ".join(process.cmdline())
    assert "s3cret" not in worker.output
    server.stop()
    with pytest.raises(StoreUnavailable) as raised:
        client.locate("listed")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_messages_other_than_spawn_tasks_are_rejected_and_daemons_run_on(
    pool: str, new_project: NewProject, new_worker: NewWorker, client_of: Callable[[Project], Client]
) -> None:
    """Attacks invariant 9: any message may arrive on a queue."""
    # Given
    project = new_project(SOURCE, settings=QUICK)
    client = client_of(project)
    worker = new_worker(project, "w1", pool=pool, concurrency=1)
    before = client.wait_running("listed", within=SOON)
    queue = spawn_queue_name(project.namespace, "w1@test")
    good = {"task": "celery_daemons.spawn", "id": "1"}
    payload = {
        "version": 1,
        "node": "w1@test",
        "incarnation": "somebody",
        "epoch": 1,
        "generation": 1,
        "assigned": [["ghost", "12"]],
        "recalled": [["listed", "7"]],
    }

    # When
    with Connection(project.broker_url) as connection:
        producer = connection.Producer(routing_key=queue)
        for body in (
            *(None, 1, "text", [], {}, [[], {}, {}], [[], {**payload, "version": 9}, {}]),
            *([[], {**payload, "node": "other"}, {}], [[], {**payload, "assigned": [["ghost", "NaN"]]}, {}]),
            *([[], {**payload, "assigned": "ghost"}, {}], [[], {**payload, "generation": "x"}, {}]),
        ):
            producer.publish(body, serializer="json", headers=good)
        producer.publish([[], payload, {}], serializer="json", headers={"task": "proj.other"})
        producer.publish([[], payload, {}], serializer="pickle", headers=good)
        producer.publish(b"\xff\xfe", content_type="application/json", content_encoding="utf-8", headers=good)
        producer.publish(b"{", content_type="application/json", content_encoding="utf-8", headers=good)
        # One that is well-formed, but for another life of the node: no error, no effect.
        producer.publish([[], payload, {}], serializer="json", headers=good)

    # Then
    wait_until(lambda: "message-rejected" in client.journal_events(), within=SOON, because="it is journalled")
    client.want("after", "watch", "[[],{}]")
    client.wait_running("after", within=SOON)
    assert client.locate("listed") == before
    assert client.record("ghost") is None
    assert worker.running
    assert "messages rejected" in worker.output
    assert "Traceback" not in worker.output
    assert client.nodes()[0].incarnation == before.incarnation
