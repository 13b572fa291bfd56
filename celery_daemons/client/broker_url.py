"""The URL of the address book in the Redis that an app uses as its broker or result backend, with its options."""

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

#: Options of ``sentinel_kwargs`` that matter for the connections to sentinels, and their names in the URL.
_OF_SENTINELS: Final = ("username", "password", "ssl", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: The schemes of connections with TLS.
_ENCRYPTED: Final = {"redis": "rediss", "valkey": "valkeys"}
_REQUIREMENTS: Final = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}


def redis_url_of(url: Any, transport_options: Any, use_ssl: Any) -> str | None:
    """Return the URL for the address book that a broker or result backend setting names.

    The setting may be a list of fail-over URLs, or such a list joined by semicolons. Of plain servers the first URL is
    used, as an address book is on one server; of Sentinels all URLs are used. ``use_ssl`` is ``broker_use_ssl`` or
    ``redis_backend_use_ssl``: its options become part of the URL, unless the URL has them.
    """
    urls = [str(one) for one in url] if isinstance(url, (list, tuple)) else str(url or "").split(";")
    options = transport_options if isinstance(transport_options, Mapping) else {}
    encryption = dict(use_ssl) if isinstance(use_ssl, Mapping) else {}
    if urls[0].startswith("sentinel://"):
        primary = {"ssl": True, **_tls(encryption)} if encryption else {}
        return _with(";".join(urls), {**_sentinel_options(options), **primary})
    scheme, _, rest = urls[0].partition("://")
    if not rest:
        return urls[0] or None
    if scheme not in ("redis", "rediss", "valkey", "valkeys"):
        return urls[0]
    if encryption:
        scheme = _ENCRYPTED.get(scheme, scheme)
    # No transport option: they name a primary, or concern queues, as global_keyprefix does, or the broker's sockets.
    return _with(f"{scheme}://{rest}", _tls(encryption))


def _sentinel_options(options: Mapping[str, Any]) -> dict[str, Any]:
    found = {"master_name": options.get("master_name")}
    given = options.get("sentinel_kwargs")
    if isinstance(given, Mapping):
        found.update({f"sentinel_{name}": given.get(name) for name in _OF_SENTINELS})
    return {name: value for name, value in found.items() if value is not None}


def _tls(encryption: Mapping[str, Any]) -> dict[str, Any]:
    """Return Celery's TLS options under the names and in the forms of the Redis client's URL."""
    found = {name: value for name, value in encryption.items() if name.startswith("ssl_") and value is not None}
    if found and "ssl_cert_reqs" in found:
        found["ssl_cert_reqs"] = _requirement(found["ssl_cert_reqs"])
        if found["ssl_cert_reqs"] == "none":
            # A client that verifies nothing must not check the name either.
            found.setdefault("ssl_check_hostname", False)
    return found


def _requirement(value: Any) -> str:
    return _REQUIREMENTS.get(value) or str(value).removeprefix("CERT_").lower()


def _with(url: str, options: Mapping[str, Any]) -> str:
    """Append options to the query of a URL, except those that the URL has already."""
    has = {pair.partition("=")[0] for pair in url.partition("?")[2].replace(";", "&").split("&")}
    query = urlencode({name: str(value) for name, value in options.items() if name not in has})
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{query}"
