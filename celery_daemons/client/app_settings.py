"""Read the settings of the package from the configuration of a Celery app."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from celery_daemons import settings as settings_module
from celery_daemons.client.broker_url import redis_url_of
from celery_daemons.domain.names import check_name
from celery_daemons.errors import ConfigurationError
from celery_daemons.settings import DEFAULT_NAMESPACE, NAMES, PREFIX, Settings

#: Characters of an app's name that a namespace may not contain.
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._\-:@/+]")
#: Characters of an app's name that its namespace shows.
_LONGEST: Final = 100


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a name, without prefix, that is no setting."""
    unknown = sorted(set(overrides) - NAMES)
    if unknown:
        raise ConfigurationError(
            f"Daemons: there is no setting {unknown[0]!r}; the settings are {', '.join(sorted(NAMES))}"
        )


def read_settings(
    app: Any,
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Settings:
    """Return the checked settings: ``options`` of a command line, then the environment, ``overrides``, ``app.conf``.

    All names are without prefix. Without ``daemons_redis_url``, the broker or else the result backend is used, with its
    TLS options, if it is a Redis. Raises ConfigurationError, and InvalidName for the namespace and the labels.
    """
    conf = app.conf
    settings_module.refuse_unread(conf, conf.prefix or "")
    values = {name: conf.get(PREFIX + name) for name in NAMES}
    values.update(overrides)
    values.update(settings_module.from_environment(environment))
    values.update(options)
    if values["namespace"] is None:
        values["namespace"] = namespace_of(app.main)
    if values["enabled"] is None and values["redis_url"] is None and has_broker_in_memory(conf):
        values["enabled"] = False
    fallbacks = (
        redis_url_of(conf.broker_url, conf.broker_transport_options, conf.broker_use_ssl),
        redis_url_of(conf.result_backend, conf.result_backend_transport_options, conf.redis_backend_use_ssl),
    )
    settings = settings_module.load(values, fallback_urls=fallbacks)
    check_name(settings.namespace, "daemons_namespace")
    for label in settings.node_labels:
        check_name(label, "node label")
    return settings


def has_broker_in_memory(conf: Any) -> bool:
    """Return whether the app's broker is Kombu's transport for tests, which no other process can reach."""
    return str(conf.broker_url or "").startswith("memory://")


def namespace_of(main: str | None) -> str:
    """Return the default namespace of an app with this main name.

    An app of the module that Python runs has the same namespace as in the processes that import that module.
    """
    name = _name_of_main_module() if main == "__main__" else main
    return f"{DEFAULT_NAMESPACE}.{_FOREIGN.sub('-', name)[:_LONGEST]}" if name else DEFAULT_NAMESPACE


def _name_of_main_module() -> str | None:
    main = sys.modules["__main__"]
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return Path(path).stem if path else None
