"""The command line's entry point: loaded at every ``celery`` command, so it may cost nothing."""

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
    "celery_daemons.cli.session",
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
def test_what_every_celery_command_loads_is_light(source: str) -> None:
    # click itself may load anything: Celery has loaded it before.
    added = loaded_by(source) - loaded_by("import click")

    assert "celery_daemons.cli" in added
    assert not added & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_the_help_lists_can_be_loaded_and_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(daemons, [name, "--help"])

    assert shown.exit_code == 0
    assert name in daemons.get_help(click.Context(daemons))
    assert f"daemons {name}" in shown.output
    command = daemons.get_command(click.Context(daemons), name)
    assert command is not None
    assert command.name == name


def test_an_unknown_command_is_wrong_usage_and_the_one_meant_is_named() -> None:
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
        (["spawn", "tick", "a", "--args", '{"x": 1}'], "another kind of JSON"),
        (["spawn", "tick", "a", "--kwargs", "[]"], "another kind of JSON"),
        (["spawn", "tick", "a", "--args", "[1,"], "is not JSON"),
        (["spawn", "tick", "a", "--args", "[NaN]"], "NaN is not a JSON number"),
        (["spawn", "tick", "a", "--wait", "inf"], "is not a time to wait"),
        (["spawn", "tick"], "Missing argument"),
        (["stop", "--wait", "a"], "a --wait without one goes last"),
        (["locate"], "Missing argument"),
        (["list", "--status", "asleep"], "'asleep' is not one of"),
        (["events", "--last", "-1"], "not in the range"),
        (["events", "--since", "yesterday"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_before_anything_is_done(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(daemons, arguments, obj=SimpleNamespace(app=None, no_color=False))

    assert done.exit_code == 2, done.output
    assert complaint in done.output
