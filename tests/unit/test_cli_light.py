"""The entry point of the command line: every ``celery`` command loads it, so it must stay light."""

import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from celery_daemons.cli import daemons

HEAVY = {
    "asyncio",
    "celery",
    "celery_daemons.app",
    "celery_daemons.cli.common",
    "celery_daemons.store",
    "difflib",
    "kombu",
    "msgspec",
    "multiprocessing",
    "redis",
    "rich",
    "uhashring",
    "xxhash",
}
COMMANDS = daemons.list_commands(click.Context(daemons))


def loaded_by(source: str) -> set[str]:
    """Return the modules that a fresh interpreter has after running ``source``."""
    listing = "import sys; print('\\nloaded', *sys.modules)"
    command = [sys.executable, "-c", f"{source}\n{listing}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "source",
    [
        "import celery_daemons.cli",
        "from celery_daemons.cli import daemons; daemons.main(['--help'], standalone_mode=False)",
    ],
    ids=["the entry point", "its help"],
)
def test_the_entry_point_and_its_help_import_nothing_heavy(source: str) -> None:
    # What click imports does not count: Celery has imported click before.
    added = loaded_by(source) - loaded_by("import click")

    assert "celery_daemons.cli" in added
    assert not added & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_can_be_loaded_and_has_a_help(name: str) -> None:
    shown = CliRunner().invoke(daemons, [name, "--help"])

    assert shown.exit_code == 0
    assert name in daemons.get_help(click.Context(daemons))
    assert f"daemons {name}" in shown.output
    command = daemons.get_command(click.Context(daemons), name)
    assert command is not None
    assert command.name == name


def test_an_unknown_command_is_a_usage_error_that_suggests_the_closest_name() -> None:
    done = CliRunner().invoke(daemons, ["describ", "tick"])

    assert done.exit_code == 2
    assert "Did you mean 'describe'?" in done.output


def test_the_apps_own_global_options_do_not_break_the_commands() -> None:
    # Celery adds the options that an app declares for all commands to the group as well.
    group = click.Group("celery", commands={"daemons": daemons})
    preload = click.Option(["--tenant"])
    daemons.params.append(preload)
    try:
        done = CliRunner().invoke(group, ["daemons", "--tenant", "x", "status", "--help"])
    finally:
        daemons.params.remove(preload)

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["spawn", "tick", "a", "--args", '{"x": 1}'], "is not a JSON array"),
        (["spawn", "tick", "a", "--kwargs", "[]"], "is not a JSON object"),
        (["spawn", "tick", "a", "--args", "[1,"], "is not JSON"),
        (["spawn", "tick", "a", "--args", "[NaN]"], "NaN is not a JSON number"),
        (["spawn", "tick", "a", "--wait", "inf"], "is not a valid wait"),
        (["spawn", "tick"], "Missing argument"),
        (["stop", "--wait", "a"], "put a --wait without a number last"),
        (["locate"], "Missing argument"),
        (["list", "--status", "asleep"], "'asleep' is not one of"),
        (["events", "--last", "-1"], "not in the range"),
        (["events", "--since", "yesterday"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_reported_before_anything_is_done(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(daemons, arguments, obj=SimpleNamespace(app=None, no_color=False))

    assert done.exit_code == 2, done.output
    assert complaint in done.output
