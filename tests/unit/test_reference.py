"""The reference is complete: what can be compared with the code is in its tables."""

import inspect
import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.utils.dispatch import Signal

import celery_daemons
from celery_daemons import DaemonRecord, Daemons, DaemonStatus, Move, Node, NodeStatus, settings, signals
from celery_daemons.cli.documents import Event
from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.node.observation import METRICS
from celery_daemons.node.probes import LIVEZ, LIVEZ_WORKER, READYZ, STARTUPZ
from celery_daemons.node.series import PREFIX, SERIES
from celery_daemons.wire.messages import PLACEMENT_REASONS
from tests.support.pages import README, REFERENCE, rows, rows_of, section

pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests of a wheel run without the documentation")


def package() -> Path:
    """Return the folder of the package under test."""
    spec = find_spec("celery_daemons")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


VERBS = sorted(path for path in (package() / "store" / "lua").glob("*.lua") if not path.stem.startswith("_"))


def shown(value: Any) -> str:
    """Write a default as the tables do."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


@pytest.mark.parametrize("name", sorted(settings.NAMES))
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    table = rows_of(REFERENCE / "settings.md")

    assert settings.PREFIX + name in table
    if name in settings.DEFAULTS and name != "namespace":  # the URL and the namespace are derived from the app
        assert table[settings.PREFIX + name][0] == f"`{shown(settings.DEFAULTS[name])}`"


def test_every_scheme_of_a_url_is_in_the_table_of_settings() -> None:
    (_, meaning) = rows_of(REFERENCE / "settings.md")["daemons_redis_url"]

    assert set(re.findall(r"`(\S+)`", meaning)) == set(settings._REDIS_SCHEMES)


@pytest.mark.parametrize("name", sorted(LauncherOptions.__slots__))
def test_every_option_of_a_launcher_is_in_the_table_with_its_default(name: str) -> None:
    table = rows_of(REFERENCE / "options.md")
    default = getattr(LauncherOptions(), name)

    assert name in table
    # The default of `isolation` depends on the function, and nothing is written as `none`.
    if isinstance(default, (bool, str)) and name != "isolation":
        assert table[name][0] == f"`{shown(default)}`"
    elif isinstance(default, (int, float)):
        assert re.search(rf"\b{default:g}\b", table[name][0])


@pytest.mark.parametrize("name", celery_daemons.__all__)
def test_every_public_name_is_in_the_reference_of_the_api(name: str) -> None:
    page = (REFERENCE / "api.md").read_text()

    assert re.search(rf"^\.\. auto(class|exception|function):: {name}$", page, re.MULTILINE)
    assert inspect.getdoc(getattr(celery_daemons, name))


@pytest.mark.parametrize("name", [name for name in vars(Daemons) if not name.startswith("_")])
def test_every_public_call_has_a_docstring_for_the_reference(name: str) -> None:
    assert inspect.getdoc(getattr(Daemons, name))


def test_every_signal_is_in_the_table_of_signals_with_its_arguments() -> None:
    sent = {name: signal.providing_args for name, signal in vars(signals).items() if isinstance(signal, Signal)}
    table = rows(section(REFERENCE / "api.md", "Signals"))

    assert len(sent) > 5
    assert {name: set(re.findall(r"`(\w+)`", table[name][1])) for name in sent} == sent


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_every_verb_in_lua_is_in_the_table_of_verbs(path: Path) -> None:
    assert path.stem in rows_of(REFERENCE / "redis-layout.md")


def test_every_event_that_a_verb_journals_is_in_the_table_of_events() -> None:
    code = "".join(path.read_text() for path in VERBS)
    written = set(re.findall(r"journal\(KEYS\[\d+\], '([a-z-]+)'", code))

    assert len(VERBS) > 10
    assert len(written) > 10
    assert written <= rows_of(REFERENCE / "events.md").keys()


@pytest.mark.parametrize(("heading", "statuses"), [("Of a daemon", DaemonStatus), ("Of a node", NodeStatus)])
def test_the_tables_of_statuses_are_those_of_the_code(heading: str, statuses: type[DaemonStatus]) -> None:
    assert rows(section(REFERENCE / "statuses.md", heading)).keys() == set(statuses)


@pytest.mark.parametrize(
    ("heading", "record"),
    [("status", ClusterStatus), ("nodes", Node), ("list", DaemonRecord), ("rebalance", Move), ("events", Event)],
)
def test_every_field_of_a_json_document_is_in_its_table(heading: str, record: Any) -> None:
    documented = rows(section(REFERENCE / "json.md", heading)).keys()

    assert documented == {field.name for field in fields(record)}


def test_the_tables_of_metrics_are_those_of_the_code() -> None:
    page = REFERENCE / "metrics.md"
    documented = rows(section(page, "Series of every node")), rows(section(page, "Series of the leader"))

    for series in SERIES.values():
        kind, labels, meaning = documented[series.leader][series.full_name]
        assert (kind, meaning) == (series.kind, series.help)
        assert labels == ", ".join(f"`{label}`" for label in series.labels)
    assert {name for table in documented for name in table if name.startswith(PREFIX)} == {
        series.full_name for series in SERIES.values()
    }


def test_the_reasons_of_a_placement_are_in_their_table() -> None:
    assert tuple(reason for reason in PLACEMENT_REASONS if reason in rows_of(REFERENCE / "metrics.md")) == (
        PLACEMENT_REASONS
    )


def test_the_table_of_probes_is_that_of_the_code() -> None:
    paths = {LIVEZ, LIVEZ_WORKER, READYZ, STARTUPZ, METRICS}

    assert {name for name in rows_of(REFERENCE / "probes.md") if name.startswith("/")} == paths


def command_rows() -> dict[str, str]:
    """Return the rows of the table of commands by the command's name: what the first cell says after it."""
    table = rows_of(REFERENCE / "command-line.md")
    return {line.split()[0]: line for line in table}


def test_the_table_of_commands_is_that_of_the_program() -> None:
    from celery_daemons.cli import daemons

    commands = daemons.list_commands(None)  # type: ignore[arg-type]

    assert len(commands) > 10
    assert list(command_rows()) == commands


def test_every_option_of_a_command_is_in_its_row() -> None:
    from celery_daemons.cli import daemons

    missing = []
    for name, line in command_rows().items():
        command = daemons.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        missing += [f"{name} {option}" for option in options - {"--json", "--help"} if option not in line]

    assert not missing


def test_every_option_of_the_worker_is_in_its_table() -> None:
    app = Celery("proj")
    Daemons(app)
    options = {option for parameter in app.user_options["worker"] for option in parameter.opts}
    documented = {name.split()[0] for name in rows(section(REFERENCE / "settings.md", "Options of the worker"))}

    assert len(options) > 2
    assert options == documented
