"""Read the settings of the package from the configuration of a Celery app."""

from collections.abc import Mapping
from typing import Any

from celery_daemons import settings as settings_module
from celery_daemons.domain.names import check_name
from celery_daemons.errors import ConfigurationError
from celery_daemons.settings import NAMES, PREFIX, Settings


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a name, without prefix, that is no setting."""
    unknown = sorted(set(overrides) - NAMES)
    if unknown:
        raise ConfigurationError(
            f"Daemons: there is no setting {unknown[0]!r}; the settings are {', '.join(sorted(NAMES))}"
        )


def read_settings(conf: Any, overrides: Mapping[str, Any]) -> Settings:
    """Return the checked settings of ``app.conf`` with ``overrides``, whose names have no prefix.

    Without ``daemons_redis_url``, the broker or else the result backend is used, if it is a Redis. Raises
    ConfigurationError, and InvalidName for the namespace and the labels.
    """
    settings_module.refuse_unread(conf, conf.prefix or "")
    values = {name: conf.get(PREFIX + name) for name in NAMES}
    values.update(overrides)
    fallbacks = (
        _redis_url_of(conf.broker_url, conf.broker_transport_options),
        _redis_url_of(conf.result_backend, conf.result_backend_transport_options),
    )
    settings = settings_module.load(values, fallback_urls=fallbacks)
    check_name(settings.namespace, "daemons_namespace")
    for label in settings.node_labels:
        check_name(label, "node label")
    return settings


def _redis_url_of(url: Any, transport_options: Any) -> str | None:
    """Return the URL that a broker or result backend setting names.

    The setting may be a list of fail-over URLs, or such a list joined by semicolons. Of plain servers the first URL is
    used, as an address book is on one server; of Sentinels all URLs are used.
    """
    urls = [str(one) for one in url] if isinstance(url, (list, tuple)) else str(url or "").split(";")
    if not urls[0].startswith("sentinel://"):
        return urls[0] or None
    joined = ";".join(urls)
    name = (transport_options or {}).get("master_name")
    return f"{joined}?master_name={name}" if name and "master_name=" not in joined else joined
