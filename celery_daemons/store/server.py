"""Parse the URL of a Redis server, and check that the server is suitable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from celery_daemons.errors import ConfigurationError
from celery_daemons.settings import check_scheme

#: Older servers do not reliably replicate the effects of scripts that call TIME.
_OLDEST: Final = (6, 2)
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss", "redis+socket": "unix", "unix": "unix"}


def normalise(url: str) -> str:
    """Translate a Celery broker URL into a URL for the Redis client."""
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    query = [(k, _requirement(v) if k == "ssl_cert_reqs" else v) for k, v in parse_qsl(parts.query)]
    if parts.scheme == "redis+socket":
        query = [("db" if k == "virtual_host" else k, v) for k, v in query]
    # Assembled by hand, because urlunsplit drops the empty authority of unix:///path.
    rest = urlunsplit(("", parts.netloc, parts.path, urlencode(query), ""))
    if not parts.netloc and not rest.startswith("//"):
        rest = "//" + rest
    return f"{scheme}:{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """The sentinels that know the primary of ``service``, and the database and login for the primary.

    ``sentinel_options`` and ``primary_options`` are further options of the Redis client, such as those of TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    username: str | None
    password: str | None
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)
    primary_options: Mapping[str, Any] = field(default_factory=dict)


def sentinels(url: str) -> Sentinels | None:
    """Parse ``sentinel://host:26379;sentinel://host:26379/0?master_name=…``; return ``None`` for any other URL."""
    if not url.startswith("sentinel://"):
        return None
    places = [urlsplit(place) for place in url.split(";")]
    query = dict(pair for place in places for pair in parse_qsl(place.query))
    paths = [place.path.strip("/") for place in places if place.path.strip("/")]
    users = [place for place in places if place.password]
    return Sentinels(
        hosts=tuple((place.hostname or "localhost", place.port or 26379) for place in places),
        service=query.get("master_name", ""),
        database=int(paths[-1]) if paths else 0,
        username=unquote(users[0].username) if users and users[0].username else None,
        password=unquote(users[0].password) if users and users[0].password else None,
        sentinel_options={
            name.removeprefix("sentinel_"): _option(name.removeprefix("sentinel_"), value)
            for name, value in query.items()
            if name.startswith("sentinel_")
        },
        primary_options={name: _option(name, value) for name, value in query.items() if name.startswith("ssl")},
    )


def _option(name: str, value: str) -> str | bool:
    if name in ("ssl", "ssl_check_hostname"):
        return value.lower() in ("1", "true", "yes")
    return _requirement(value) if name == "ssl_cert_reqs" else value


def _requirement(value: str) -> str:
    """Translate Celery's name of a TLS requirement into that of the Redis client."""
    return value.removeprefix("CERT_").lower()


def check_url(url: str) -> None:
    """Raise :exc:`ConfigurationError` for a URL that the client could not use; the message quotes no password."""
    check_scheme(url)
    for place in url.split(";"):
        try:
            _ = urlsplit(place).port
        except ValueError:
            raise ConfigurationError(
                "daemons_redis_url: the port is not a number; write redis://host:6379/0, and percent-encode the "
                "characters # / ? @ in a password"
            ) from None
        parts = urlsplit(normalise(place))
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not database.isdigit():
            raise ConfigurationError(
                f"daemons_redis_url: the database {database!r} of {shown(url)} is not a number; "
                "write redis://host:6379/0"
            )
    parsed = sentinels(url)
    if parsed is not None and not parsed.service:
        raise ConfigurationError(
            f"daemons_redis_url: {shown(url)} does not name a primary; append ?master_name=NAME, where NAME is what "
            "the sentinels call the primary"
        )


def shown(url: str) -> str:
    """Return the URL without passwords and query, for messages and logs."""
    places = []
    for place in url.split(";"):
        parts = urlsplit(place)
        places.append(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    return ";".join(places)


def check(info: Mapping[str, Any], url: str) -> None:
    """Raise :exc:`ConfigurationError` if the server that answered ``INFO`` with ``info`` is unsuitable."""
    version = str(info.get("redis_version", "0"))
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    if numbers < _OLDEST:
        raise ConfigurationError(
            f"Redis at {shown(url)} is version {version}; celery_daemons needs 6.2 or newer, or any Valkey: "
            "upgrade the server, or point daemons_redis_url at a newer one"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis at {shown(url)} may evict keys (maxmemory-policy {policy}), which loses leases and specs; set "
            "maxmemory-policy noeviction, or point daemons_redis_url at a server that has it"
        )
