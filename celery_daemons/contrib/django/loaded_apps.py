"""Find the Celery app whose daemons the Django project uses."""

from typing import Any

from celery import _state

from celery_daemons.app import Daemons
from celery_daemons.errors import ConfigurationError
from celery_daemons.launcher import has_daemons


def loaded_daemons() -> list[Daemons]:
    """Return the Daemons of every Celery app that this process has imported, that of the current app first."""
    current = _current_app()
    apps: list[Any] = [current, *(app for app in _state._get_active_apps() if app is not current)]
    return [Daemons.of(app) for app in apps if has_daemons(app)]


def project_daemons() -> Daemons:
    """Return the Daemons of the current Celery app or, if that has none, of the only other app that has them.

    Raises :exc:`~celery_daemons.ConfigurationError`.
    """
    found = loaded_daemons()
    if not found:
        raise ConfigurationError(
            "no Celery app with a Daemons is imported: write `daemons = Daemons(app)` beside the Celery app, and "
            "import the app in __init__.py of the project's package, as Celery's guide for Django shows"
        )
    if len(found) > 1 and not has_daemons(_current_app()):
        names = ", ".join(repr(daemons.app.main) for daemons in found)
        raise ConfigurationError(
            f"{len(found)} Celery apps have a Daemons ({names}), and none is the current app: name one, as in "
            f"`celery -A {found[0].app.main} daemons`"
        )
    return found[0]


def _current_app() -> Any:
    # Not celery.current_app, which creates an app if there is none.
    return _state._tls.current_app or _state.default_app
