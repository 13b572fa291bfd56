"""System checks: they read the configuration and reach neither Redis nor a database."""

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as DjangoWarning

from celery_daemons.contrib.django.loaded_apps import loaded_daemons, project_daemons
from celery_daemons.errors import ConfigurationError


def check_configuration(**_: Any) -> list[CheckMessage]:
    """Return E001 if no Celery app with a Daemons is found, and E002 for wrong settings of each app."""
    try:
        project_daemons()
    except ConfigurationError as error:
        return [Error(str(error), id="celery_daemons.E001")]
    return list(_wrong_settings())


def check_deployment(**_: Any) -> list[CheckMessage]:
    """Return W001 for each app whose calls change no cluster: right in tests, wrong in production."""
    return [
        DjangoWarning(
            f"{why}: spawn and other calls of daemons are recorded in memory and change no cluster",
            hint="Unset it in the settings of the deployment.",
            obj=daemons.app,
            id="celery_daemons.W001",
        )
        for daemons in loaded_daemons()
        if not list(_wrong_settings()) and (why := daemons.participation.why_recorded()) is not None
    ]


def _wrong_settings() -> Iterator[CheckMessage]:
    for daemons in loaded_daemons():
        try:
            # Not the cached property, which would read the settings before the project can change them.
            daemons.settings_with()
        except ConfigurationError as error:
            yield Error(str(error), obj=daemons.app, id="celery_daemons.E002")
