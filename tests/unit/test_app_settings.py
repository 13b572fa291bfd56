"""What users set for Celery counts for the package too, and adopting the package changes nothing before a spawn."""

import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from celery_daemons import ConfigurationError, Daemons, SpecConflict
from celery_daemons.client import participation
from celery_daemons.client.app_settings import namespace_of
from celery_daemons.settings import Settings, from_environment
from celery_daemons.store import server
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.keys import Keys

REDIS = "redis://localhost:1/0"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_DAEMONS_LEASE_TTL", raising=False)


def app_with(broker: str | list[str] = REDIS, /, main: str | None = "proj", **conf: Any) -> Celery:
    app = Celery(main, set_as_current=False)
    app.conf.update(broker_url=broker, **conf)
    return app


def settings_of(app: Celery, **overrides: Any) -> Settings:
    return Daemons(app, **overrides).settings


def client_options(url: str) -> dict[str, Any]:
    """The options with which both clients connect."""
    blocking = Store(url, Keys("ns")).client.connection_pool
    asynchronous = AsyncStore(url, Keys("ns"), timeout=1.0).client.connection_pool
    for pool in (blocking, asynchronous):
        assert "SSL" in pool.connection_class.__name__
    return dict(blocking.connection_kwargs)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("none", [ssl.CERT_NONE, "CERT_NONE", "none", 0])
def test_the_tls_options_of_the_broker_are_used_with_its_url(scheme: str, none: Any) -> None:
    app = app_with(f"{scheme}://localhost:1/0", broker_use_ssl={"ssl_cert_reqs": none})

    options = client_options(settings_of(app).redis_url)

    assert options["ssl_cert_reqs"] == "none"
    assert options["ssl_check_hostname"] is False


def test_the_tls_options_of_the_result_backend_are_used_with_its_url() -> None:
    app = app_with(
        "amqp://localhost//",
        result_backend="redis://localhost:2/0",
        redis_backend_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"},
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE},
    )

    options = client_options(settings_of(app).redis_url)

    assert (options["port"], options["ssl_cert_reqs"], options["ssl_ca_certs"]) == (2, "required", "/ca.pem")


def test_an_option_of_the_url_takes_precedence_over_the_brokers_tls_options() -> None:
    app = app_with("rediss://localhost:1/0?ssl_cert_reqs=required", broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE})

    assert client_options(settings_of(app).redis_url)["ssl_cert_reqs"] == "required"


def test_nothing_is_added_to_a_url_of_our_own() -> None:
    app = app_with(broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE})

    assert settings_of(app, redis_url="redis://localhost:3/0").redis_url == "redis://localhost:3/0"


def test_the_transport_options_of_sentinels_are_used_and_those_of_queues_are_not() -> None:
    # Given
    app = app_with(
        ["sentinel://:secret@one:26379/2", "sentinel://two:26379/2"],
        broker_transport_options={
            "master_name": "cache",
            "sentinel_kwargs": {"password": "s3", "ssl": True, "ssl_cert_reqs": "CERT_NONE"},
            "global_keyprefix": "shop-",
            "visibility_timeout": 60,
            "socket_timeout": 1,
        },
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE},
    )

    # When
    url = settings_of(app).redis_url
    found = server.sentinels(url)

    # Then
    assert found is not None
    assert found.hosts == (("one", 26379), ("two", 26379))
    assert (found.service, found.database, found.password) == ("cache", 2, "secret")
    assert found.sentinel_options == {"password": "s3", "ssl": True, "ssl_cert_reqs": "none"}
    assert found.primary_options == {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert "shop-" not in url
    for store in (Store(url, Keys("ns")), AsyncStore(url, Keys("ns"), timeout=1.0)):
        assert "SSL" in store.client.connection_pool.connection_class.__name__
        sentinel = store.client.connection_pool.sentinel_manager.sentinels[0]
        assert sentinel.connection_pool.connection_kwargs["password"] == "s3"
        assert "SSL" in sentinel.connection_pool.connection_class.__name__


@pytest.mark.parametrize(
    ("main", "namespace"),
    [
        ("shop", "celery-daemons.shop"),
        ("shop.celery", "celery-daemons.shop.celery"),
        ("my shop", "celery-daemons.my-shop"),
        (None, "celery-daemons"),
        ("", "celery-daemons"),
    ],
)
def test_the_default_namespace_has_the_name_of_the_app(main: str | None, namespace: str) -> None:
    assert settings_of(app_with(main=main)).namespace == namespace


def test_an_app_of_the_main_module_has_the_namespace_of_the_imported_module(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given `python shop.py`, which the workers import as `shop`
    class Main:
        __spec__ = None
        __file__ = "/srv/shop.py"

    monkeypatch.setitem(__import__("sys").modules, "__main__", Main())

    # Then
    assert namespace_of("__main__") == namespace_of("shop")


def test_settings_are_read_from_the_environment_before_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_DAEMONS_LEASE_TTL", "8")
    monkeypatch.setenv("CELERY_DAEMONS_NODE_LABELS", "gpu,eu")
    monkeypatch.setenv("CELERY_DAEMONS_HOSTS", "")

    settings = settings_of(app_with(daemons_lease_ttl=20.0), lease_ttl=30.0, hosts=2)

    assert (settings.lease_ttl, settings.node_labels, settings.hosts) == (8.0, ("eu", "gpu"), 2)


def test_an_option_of_the_command_line_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_DAEMONS_NODE_WEIGHT", "2")

    assert Daemons(app_with()).settings_with(node_weight=3.0).node_weight == 3.0


def test_a_misspelt_variable_is_refused_and_those_of_kubernetes_services_are_not() -> None:
    assert from_environment({"CELERY_DAEMONS_PORT": "tcp://10.0.0.1:80", "CELERY_DAEMONS_SERVICE_HOST": "x"}) == {}
    with pytest.raises(ConfigurationError, match=r"CELERY_DAEMONS_LEASE_TLL.*is CELERY_DAEMONS_LEASE_TTL meant"):
        from_environment({"CELERY_DAEMONS_LEASE_TLL": "3"})


def disabled(**conf: Any) -> Daemons:
    """The daemons of an app without a cluster, with one launcher."""
    daemons = Daemons(app_with(**{"daemons_enabled": False, **conf}))

    @daemons.launcher
    async def feed(ctx: Any, every: float = 1.0) -> None:
        """Do nothing."""

    return daemons


@pytest.mark.parametrize("conf", [{}, {"daemons_enabled": None, "task_always_eager": True}])
def test_without_a_cluster_calls_are_recorded_in_memory_with_one_warning(
    conf: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a Redis that does not answer
    daemons = disabled(**conf)

    # When
    assert daemons.spawn("feed.a", "feed", args=[2.0], wait=5) is None
    daemons.launchers["feed"].spawn("feed.b", every=3.0)
    daemons.stop("feed.b")

    # Then
    assert daemons.recorded is not None
    assert [(spec.name, spec.args, spec.kwargs) for spec in daemons.recorded.specs.values()] == [
        ("feed.a", (), {"every": 2.0}),
        ("feed.b", (), {"every": 3.0}),
    ]
    assert {record.name: record.status for record in daemons.list()} == {"feed.a": "pending", "feed.b": "stopped"}
    assert daemons.locate("feed.a") is None
    assert daemons.nodes() == []
    assert daemons.status().daemons["desired"] == 1
    assert daemons.forget("feed.a") is True
    with pytest.raises(SpecConflict):
        daemons.spawn("feed.b", "feed", args=["another"])
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_an_eager_task_of_a_launcher_does_not_wait_and_changes_no_cluster() -> None:
    daemons = disabled(daemons_enabled=None, task_always_eager=True)

    result = daemons.launchers["feed"].delay("feed.a", every=2.0)

    assert result.get() is None
    assert daemons.recorded is not None
    assert list(daemons.recorded.specs) == ["feed.a"]


def test_an_app_that_becomes_eager_after_its_first_call_is_recorded_from_then_on() -> None:
    daemons = disabled(daemons_enabled=None)
    assert daemons.recorded is None

    daemons.app.conf.task_always_eager = True

    assert daemons.spawn("feed.a", "feed") is None


@pytest.fixture
def root_level() -> Iterator[None]:
    """Restore the level of the root logger, which an embedded worker sets: later tests may read warnings."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("root_level")
def test_a_task_is_tested_with_an_embedded_worker_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an existing project and its test
    warnings: list[str] = []
    # A worker takes the handlers of the root logger away.
    monkeypatch.setattr(participation.logger, "warning", lambda text, *args: warnings.append(text % args))
    app = app_with(main="tests.unit.test_app_settings")
    Daemons(app)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    app.conf.update(broker_url="memory://", result_backend="cache+memory://")

    # When
    with start_worker(app, perform_ping_check=False):
        assert add.delay(1, 2).get(timeout=5) == 3

    # Then
    (warning,) = warnings
    assert "neither daemons_enabled nor daemons_redis_url is set; it is a plain worker without daemons" in warning
