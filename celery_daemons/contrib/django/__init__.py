"""Integration with Django: put ``"celery_daemons.contrib.django"`` into ``INSTALLED_APPS``.

The app imports ``daemons.py`` of every installed app, closes database connections between the rounds of daemons, checks
the configuration, and adds ``manage.py daemons …``. It has no models.
"""

from typing import ParamSpec

from celery_daemons.launcher import Launcher

P = ParamSpec("P")

__all__ = ["spawn_on_commit"]


def spawn_on_commit(launcher: Launcher[P], name: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Spawn daemon ``name`` with these arguments once the current transaction of the default database is committed.

    If the transaction is rolled back, nothing is spawned; outside of a transaction the daemon is spawned at once.
    Raises :exc:`~celery_daemons.InvalidName`, and :exc:`~celery_daemons.ConfigurationError` for arguments that the
    launcher does not take or that have no JSON form, both before the commit. What :meth:`~celery_daemons.Daemons.spawn`
    raises after the commit, such as :exc:`~celery_daemons.StoreUnavailable`, propagates to the code that commits. For
    another database, use ``django.db.transaction.on_commit``.
    """
    from django.db import transaction

    from celery_daemons.wire.arguments import encode_arguments

    spec = launcher.spec(name, *args, **kwargs)
    encode_arguments(name, spec.args, spec.kwargs)
    transaction.on_commit(lambda: launcher.spawn(name, *args, **kwargs))
