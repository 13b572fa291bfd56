"""Settings: conversion, rules, and error messages."""

from dataclasses import asdict
from typing import Any

import msgspec
import pytest

from celery_daemons.errors import ConfigurationError
from celery_daemons.http_endpoint import http_endpoint
from celery_daemons.settings import DEFAULTS, NAMES, PREFIX, Settings, load, refuse_unread

URL = "redis://localhost:6379/0"


def given(**values: Any) -> Settings:
    return load({"redis_url": URL, **values})


def test_only_the_url_is_required() -> None:
    settings = given()

    assert settings == Settings(redis_url=URL)
    assert asdict(settings) == {"redis_url": URL, **DEFAULTS}


def test_unset_values_are_the_defaults() -> None:
    assert given(lease_ttl=None, node_labels=None) == given()


def test_settings_round_trip_as_plain_data() -> None:
    settings = given(node_labels=["gpu"], hosts=3, lease_ttl=7.5)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings) == settings


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("lease_ttl", "7.5", 7.5),
        ("lease_ttl", 7, 7.0),
        ("hosts", "4", 4),
        ("hosts", 4.0, 4),
        ("monitor", "no", False),
        ("monitor", "On", True),
        ("monitor", 0, False),
        ("monitor", 1, True),
        ("namespace", "shop", "shop"),
        ("node_labels", "gpu, eu ,,gpu", ("eu", "gpu")),
        ("node_labels", ["gpu", "eu"], ("eu", "gpu")),
        ("node_labels", "", ()),
        ("rebalance", "off", "off"),
        ("on_store_loss", "keep", "keep"),
    ],
)
def test_values_are_converted_from_their_usual_forms(name: str, value: object, read: object) -> None:
    assert getattr(given(**{name: value}), name) == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_ttl", "soon"),
        ("lease_ttl", True),
        ("lease_ttl", float("inf")),
        ("lease_ttl", "nan"),
        ("scan_interval", [60]),
        ("hosts", 1.5),
        ("hosts", "1.5"),
        ("hosts", True),
        ("vnodes", float("inf")),
        ("monitor", "perhaps"),
        ("monitor", 2),
        ("monitor", 0.5),
        ("namespace", ""),
        ("namespace", 7),
        ("node_labels", [1, 2]),
        ("node_labels", 5),
        ("redis_url", ""),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{PREFIX}{name}: "):
        given(**{name: value})


@pytest.mark.parametrize(
    ("values", "named", "rule"),
    [
        ({"lease_ttl": 2.9}, "lease_ttl", "at least 3 × daemons_heartbeat_interval"),
        ({"heartbeat_interval": 2}, "lease_ttl", "at least 3 × daemons_heartbeat_interval"),
        ({"heartbeat_interval": 0.0}, "heartbeat_interval", "above 0"),
        ({"lease_ttl": -1.0}, "lease_ttl", "above 0"),
        (
            {"lease_ttl": 0.2, "heartbeat_interval": 0.05},
            "lease_ttl",
            "leaves less than 2 × daemons_heartbeat_interval",
        ),
        ({"lease_ttl": 0.3, "heartbeat_interval": 0.1}, "lease_ttl", "after the margin of 0.2 s"),
        ({"lease_ttl_max": 0.0}, "lease_ttl_max", "above 0"),
        ({"lease_ttl_max": 4.9}, "lease_ttl_max", "at least daemons_lease_ttl"),
        ({"scan_interval": 0.0}, "scan_interval", "above 0"),
        ({"scan_timeout": 0.0}, "scan_timeout", "above 0"),
        ({"reconcile_interval": 0.0}, "reconcile_interval", "above 0"),
        ({"node_weight": 0.0}, "node_weight", "above 0"),
        ({"hosts": 0}, "hosts", "above 0"),
        ({"vnodes": 0}, "vnodes", "above 0"),
        ({"load_factor": 0.99}, "load_factor", "at least 1"),
        ({"rebalance_limit": 0.0}, "rebalance_limit", "above 0"),
        ({"rebalance_limit": 1.1}, "rebalance_limit", "at most 1"),
        ({"rebalance": "sometimes"}, "rebalance", "one of auto, manual, off"),
        ({"on_store_loss": "panic"}, "on_store_loss", "one of stop, keep"),
        ({"settle_delay": -1.0}, "settle_delay", "negative"),
        ({"drain_timeout": -0.1}, "drain_timeout", "negative"),
    ],
)
def test_a_broken_rule_names_the_setting_its_value_and_the_rule(values: dict[str, Any], named: str, rule: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        given(**values)

    message = str(caught.value)
    assert message.startswith(f"{PREFIX}{named}: {getattr(Settings(redis_url=URL, **values), named)!r} ")
    assert rule in message


def test_values_at_their_limits_are_accepted() -> None:
    given(lease_ttl=3.0, load_factor=1, rebalance_limit=1, settle_delay=0, drain_timeout=0)


def test_an_unknown_setting_is_refused_with_the_list_of_settings() -> None:
    with pytest.raises(ConfigurationError, match="there is no setting daemons_lease_tll") as caught:
        given(lease_tll=5)

    assert "lease_ttl" in str(caught.value)


@pytest.mark.parametrize(
    ("conf", "namespace", "reason"),
    [
        ({"daemons_leese_ttl": 5}, "", "there is no setting daemons_leese_ttl; is daemons_lease_ttl meant"),
        ({"CELERY_DAEMONS_HOST": 2}, "CELERY_", "CELERY_DAEMONS_HOST; is CELERY_DAEMONS_HOSTS meant"),
        ({"daemons_host": 2}, "CELERY_", "daemons_host; is daemons_hosts meant"),
        ({"DAEMONS_HOSTS": 2}, "", "DAEMONS_HOSTS is not read: write daemons_hosts"),
        ({"daemons_xyz": 2}, "", "there is no setting daemons_xyz; the settings are daemons_drain_timeout, daemons_e"),
        ({"CELERY_DAEMONS_XYZ": 2}, "CELERY_", "CELERY_DAEMONS_XYZ; the settings are CELERY_DAEMONS_DRAIN_TIMEOUT, "),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(conf: dict[str, Any], namespace: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        refuse_unread(conf, namespace)


def test_settings_of_other_packages_are_accepted() -> None:
    refuse_unread({"DAEMONS_DIR": "/srv", "daemons_of": len, "HOSTS": 1, "daemons_hosts": 2}, "")
    refuse_unread({"DAEMONS_HOST": "/srv", "CELERY_DAEMONS_HOSTS": 2, "CELERY_TIMEZONE": "UTC"}, "CELERY_")


def test_the_default_url_is_the_brokers_or_the_result_backends() -> None:
    assert load({}, fallback_urls=("redis://broker", "redis://backend")).redis_url == "redis://broker"
    assert load({}, fallback_urls=("amqp://broker", "rediss://backend")).redis_url == "rediss://backend"
    assert (
        load({}, fallback_urls=(None, "redis+socket:///run/redis.sock")).redis_url == "redis+socket:///run/redis.sock"
    )
    assert load({"redis_url": URL}, fallback_urls=("redis://broker",)).redis_url == URL


def test_the_error_without_any_redis_url_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="daemons_redis_url is not set and neither"):
        load({}, fallback_urls=("amqp://localhost", None))


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "amqp://localhost"])
def test_a_url_of_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="daemons_redis_url: scheme"):
        load({"redis_url": url})


def test_no_error_shows_a_password() -> None:
    for url in ("http://user:secret@localhost", "redis://user:secret@localhost"):
        with pytest.raises(ConfigurationError) as caught:
            load({"redis_url": url, "rebalance": "x"})
        assert "secret" not in str(caught.value)


def test_the_lease_is_in_milliseconds_and_has_a_margin() -> None:
    settings = given(lease_ttl=6.5)

    assert settings.lease_ttl_ms == 6500
    assert settings.lease_margin == pytest.approx(0.65)
    assert given(lease_ttl=0.9, heartbeat_interval=0.3).lease_margin == 0.2


def test_every_setting_but_the_url_has_a_default() -> None:
    assert set(DEFAULTS) == NAMES - {"redis_url"}


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("127.0.0.1:9549", ("127.0.0.1", 9549)),
        ("[::1]:9549", ("::1", 9549)),
        ("localhost:0", ("localhost", 0)),
        ("192.0.2.7:65535", ("192.0.2.7", 65535)),
    ],
)
def test_an_address_for_probes_is_read(value: str, endpoint: tuple[str, int]) -> None:
    assert http_endpoint(value) == endpoint


@pytest.mark.parametrize("value", ["9549", ":9549", "::1:9549", "host", "host:", "host:70000", "host:x", "[]:1"])
def test_an_address_that_cannot_be_served_is_refused_with_the_rule(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"daemons_http: .* must be host:port"):
        load({"redis_url": "redis://localhost", "http": value})
