"""The import string of the user's app."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from celery_daemons.errors import ConfigurationError
from celery_daemons.forkserver.apploader import import_string


def module(name: str, **attributes: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(attributes)
    return made


def test_an_app_is_named_after_the_module_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    app = SimpleNamespace(main="proj")
    monkeypatch.setitem(sys.modules, "proj.celery", module("proj.celery", app=app))
    monkeypatch.setitem(sys.modules, "proj.long.way.round", module("proj.long.way.round", app=app))

    assert import_string(app) == "proj.celery:app"


@pytest.mark.parametrize("alias", ["__main__", "__mp_main__"])
def test_an_app_in_the_main_script_is_refused_with_the_reason(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = SimpleNamespace(main="proj")
    monkeypatch.setitem(sys.modules, "__main__", module("__main__", __spec__=None))
    monkeypatch.setitem(sys.modules, alias, module("__main__", __spec__=None, app=app))

    with pytest.raises(ConfigurationError, match="in the script that was run; put it into a module"):
        import_string(app)


def test_an_app_that_no_module_holds_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="is not a module's attribute: daemons run in separate processes, which import the app"
    ):
        import_string(SimpleNamespace(main="proj"))
