"""The Django app: what it registers once all models are loaded."""

from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules


class DaemonsConfig(AppConfig):  # type: ignore[misc]
    """Discovers ``daemons.py``, connects the receivers that close connections, and registers the system checks."""

    name = "celery_daemons.contrib.django"
    label = "celery_daemons"
    verbose_name = "Celery daemons"

    def ready(self) -> None:
        """Connect, register and discover. Opens no connection."""
        from celery_daemons.contrib.django import db_connections, system_checks

        db_connections.connect_receivers()
        checks.register(system_checks.check_configuration)
        checks.register(system_checks.check_deployment, deploy=True)
        # Last: an exception of another app's module must propagate, as with admin.py.
        autodiscover_modules("daemons")
