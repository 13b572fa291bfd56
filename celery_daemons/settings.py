"""The settings of the package: read from a mapping of ``daemons_*`` keys, checked once, then frozen."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit

from celery_daemons.errors import ConfigurationError
from celery_daemons.http_endpoint import is_endpoint

PREFIX: Final = "daemons_"
#: Of the environment variables with these names, each is read before ``app.conf``.
ENVIRONMENT_PREFIX: Final = "CELERY_DAEMONS_"
#: Variables of that prefix that are no settings: the package hands them to its own processes.
_INTERNAL_VARIABLES: Final = frozenset(("CELERY_DAEMONS_PRELOAD",))
#: How alike a name and a setting are, between 0 and 1, so that the name counts as misspelt.
_MISSPELT: Final = 0.85
#: The namespace of an app without a main name; other apps append their names.
DEFAULT_NAMESPACE: Final = "celery-daemons"
DEFAULT_VNODES: Final = 40
#: A lease of fewer heartbeats would end after one late heartbeat.
_BEATS_PER_LEASE: Final = 3
#: With fewer heartbeats before the holder's own end of the lease, the first late one would end it.
_BEATS_AFTER_MARGIN: Final = 2
_ABOVE_ZERO: Final = (
    "heartbeat_interval",
    "lease_ttl",
    "lease_ttl_max",
    "scan_interval",
    "scan_timeout",
    "reconcile_interval",
    "node_weight",
    "rebalance_limit",
    "hosts",
    "host_max_memory",
    "vnodes",
)
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix", "redis+socket", "valkey", "valkeys", "sentinel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, named without the prefix. Times are in seconds, memory is in KiB."""

    redis_url: str
    enabled: bool = True
    namespace: str = DEFAULT_NAMESPACE
    heartbeat_interval: float = 1.0
    lease_ttl: float = 5.0
    lease_ttl_max: float | None = None
    monitor: bool = True
    scan_interval: float = 60.0
    scan_timeout: float = 30.0
    reconcile_interval: float = 5.0
    load_factor: float = 1.25
    vnodes: int = DEFAULT_VNODES
    rebalance: str = "auto"
    rebalance_limit: float = 0.1
    settle_delay: float = 5.0
    hosts: int = 1
    host_max_memory: float | None = None
    node_labels: tuple[str, ...] = ()
    node_weight: float = 1.0
    drain_timeout: float = 25.0
    on_store_loss: str = "stop"
    http: str | None = None
    health_file: str | None = None

    @property
    def lease_ttl_ms(self) -> int:
        """Return the lease in whole milliseconds, the unit that Redis uses."""
        return int(self.lease_ttl * 1000)

    @property
    def longest_lease(self) -> float:
        """Return the longest lease that any node of the cluster may have, as far as the settings say."""
        return max(self.lease_ttl, self.lease_ttl_max or 0.0)

    @property
    def lease_margin(self) -> float:
        """Return how many seconds before the end of a lease the holder treats the lease as lost.

        The margin covers a difference in clock rates, and the time that the kernel takes to end a process.
        """
        return max(0.2, self.lease_ttl * 0.1)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not isfinite(number):
        raise ValueError(value)
    return number


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError(value)
    return int(value)


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        return value.strip().lower() in ("1", "true", "yes", "on")
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def _labels(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else list(value)
    if not all(isinstance(part, str) for part in parts):
        raise ValueError(value)
    return tuple(sorted({part.strip() for part in parts if part.strip()}))


_READERS: Final[dict[type | str, tuple[Callable[[Any], Any], str]]] = {
    "float": (_number, "a number"),
    "int": (_whole, "a whole number"),
    "bool": (_flag, "true or false"),
    "str": (_text, "a non-empty string"),
    "tuple[str, ...]": (_labels, "a list of names, or names joined by commas"),
}

_KINDS: Final = {f.name: str(getattr(f.type, "__name__", f.type)) for f in fields(Settings)} | {
    "node_labels": "tuple[str, ...]",
    "host_max_memory": "float",
    "lease_ttl_max": "float",
    "http": "str",
    "health_file": "str",
}
#: The default of every setting except redis_url, which is derived from the broker.
DEFAULTS: Final[dict[str, Any]] = {f.name: f.default for f in fields(Settings) if f.name != "redis_url"}
NAMES: Final = frozenset(_KINDS)


def load(values: Mapping[str, Any], *, fallback_urls: tuple[str | None, ...] = ()) -> Settings:
    """Build the settings from ``values``, whose keys have no prefix; the value ``None`` means unset.

    If ``redis_url`` is unset, the first Redis URL of ``fallback_urls`` is used: the broker's or the result backend's.
    Raises :exc:`ConfigurationError` with the setting, its value and the rule.
    """
    unknown = sorted(set(values) - NAMES)
    if unknown:
        known = ", ".join(sorted(NAMES))
        raise ConfigurationError(
            f"there is no setting {PREFIX}{unknown[0]}; the settings are (each with the prefix {PREFIX}): {known}"
        )
    given: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        reader, form = _READERS[_KINDS[name]]
        try:
            given[name] = reader(value)
        except (TypeError, ValueError, OverflowError):
            shown = repr(value) if name != "redis_url" else "the value given"
            raise ConfigurationError(f"{PREFIX}{name}: {shown} is not {form}") from None
    given.setdefault("redis_url", next((url for url in fallback_urls if url and _is_redis(url)), None))
    if given["redis_url"] is None and given.get("enabled") is False:
        given["redis_url"] = ""
    if given["redis_url"] is None:
        raise ConfigurationError(
            f"{PREFIX}redis_url is not set and neither the broker nor the result backend is Redis; "
            "set it to the Redis that should hold the address book, for example redis://localhost:6379/0"
        )
    settings = Settings(**given)
    _check(settings)
    return settings


def _is_redis(url: str) -> bool:
    return url.partition("://")[0] in _REDIS_SCHEMES


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings from environment variables such as ``CELERY_DAEMONS_LEASE_TTL``, without the prefix.

    An empty variable counts as unset. A variable that names no setting is not read: Kubernetes, for one, sets
    ``CELERY_DAEMONS_PORT`` for a service of that name. Raises ConfigurationError if it is nearly the name of one.
    """
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _INTERNAL_VARIABLES or not value:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in NAMES:
            found[name] = value
        elif near := _near(name, NAMES, cutoff=_MISSPELT):
            raise ConfigurationError(
                f"the environment variable {variable} names no setting; is {ENVIRONMENT_PREFIX}{near.upper()} meant?"
            )
    return found


def _near(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that ``name`` resembles most; ``None`` if none is as similar as ``cutoff``, of 1."""
    # Imported here: only errors need it, and every process of a node imports this module.
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def refuse_unread(conf: Mapping[str, Any], namespace: str) -> None:
    """Raise ConfigurationError for a ``daemons_*`` key of Celery's configuration that would be ignored.

    ``namespace`` is the prefix of all keys in the configuration, for example ``CELERY_``; empty if there is none.
    """
    for key in map(str, conf):
        spaced = bool(namespace) and key.startswith(namespace)
        name = key.removeprefix(namespace).lower() if spaced else key
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in NAMES and not callable(conf[key]):
            keys = {one: namespace + (PREFIX + one).upper() if spaced else PREFIX + one for one in NAMES}
            near = _near(name.removeprefix(PREFIX), keys)
            meant = f"is {keys[near]} meant?" if near else f"the settings are {', '.join(sorted(keys.values()))}"
            raise ConfigurationError(f"there is no setting {key}; {meant}")
        if not namespace and key != key.lower() and key.lower() in [PREFIX + known for known in NAMES]:
            raise ConfigurationError(f"the setting {key} is not read: write {key.lower()}, or configure a namespace")


def check_scheme(url: str) -> None:
    """Raise ConfigurationError unless the scheme of ``url`` is known for Redis or Valkey."""
    if not _is_redis(url):
        raise ConfigurationError(
            f"{PREFIX}redis_url: scheme {urlsplit(url).scheme!r} is not one of {', '.join(_REDIS_SCHEMES)}; "
            "write redis://host:6379/0"
        )


def _check(s: Settings) -> None:
    if s.enabled or s.redis_url:
        check_scheme(s.redis_url)
    for name in _ABOVE_ZERO:
        value = getattr(s, name)
        _rule(s, name, value is None or value > 0, "must be above 0")
    for name in ("settle_delay", "drain_timeout"):
        _rule(s, name, getattr(s, name) >= 0, "must not be negative")
    _rule(s, "load_factor", s.load_factor >= 1, "must be at least 1: no node can hold less than its fair share")
    _rule(s, "rebalance_limit", s.rebalance_limit <= 1, "is a share of all daemons: at most 1")
    _rule(s, "rebalance", s.rebalance in ("auto", "manual", "off"), "must be one of auto, manual, off")
    _rule(s, "on_store_loss", s.on_store_loss in ("stop", "keep"), "must be one of stop, keep")
    _rule(
        s,
        "lease_ttl",
        # Rounded, because 3 × 0.4 is slightly more than 1.2 in floating point.
        s.lease_ttl >= round(_BEATS_PER_LEASE * s.heartbeat_interval, 9),
        f"must be at least {_BEATS_PER_LEASE} × {PREFIX}heartbeat_interval ({s.heartbeat_interval}), "
        "or one late heartbeat loses the lease",
    )
    _rule(
        s,
        "lease_ttl",
        round(s.lease_ttl - s.lease_margin, 9) >= round(_BEATS_AFTER_MARGIN * s.heartbeat_interval, 9),
        f"leaves less than {_BEATS_AFTER_MARGIN} × {PREFIX}heartbeat_interval ({s.heartbeat_interval}) after the "
        f"margin of {s.lease_margin:g} s that every holder keeps: make the lease longer, or the heartbeat shorter",
    )
    _rule(
        s,
        "lease_ttl_max",
        s.lease_ttl_max is None or s.lease_ttl_max >= s.lease_ttl,
        f"must be at least {PREFIX}lease_ttl ({s.lease_ttl}): it is the longest lease of any node, this one included",
    )
    _rule(
        s,
        "http",
        s.http is None or is_endpoint(s.http),
        'must be host:port, for example "127.0.0.1:9549" or "[::1]:9549"; "0.0.0.0:9549" is every address of the host',
    )


def _rule(settings: Settings, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigurationError(f"{PREFIX}{name}: {getattr(settings, name)!r} {rule}")
