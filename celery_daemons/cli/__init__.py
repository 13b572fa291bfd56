"""``celery -A proj daemons …``: this module is loaded at every ``celery`` command, so it imports nothing but click."""

from importlib import import_module
from typing import Any

import click

#: Each command, where it is, and its line in the help: listing them loads none.
_COMMANDS = {
    "status": ("show:status", "The cluster at a glance: leader, nodes, daemons, scanners."),
    "nodes": ("show:nodes", "The nodes, and what each holds."),
    "list": ("show:list_daemons", "The daemons, and where each one is."),
    "locate": ("show:locate", "Where daemons run."),
    "describe": ("describe:describe", "All that is known of one daemon."),
    "launchers": ("show:launchers", "The launchers of the app, and the nodes that have them."),
    "events": ("events:events", "What happened lately, or what happens now."),
    "spawn": ("change:spawn", "Record that a daemon should run."),
    "stop": ("change:stop", "Stop a daemon until it is started again."),
    "start": ("change:start", "Let a stopped daemon run again."),
    "restart": ("change:restart", "Start a daemon anew."),
    "forget": ("change:forget", "Stop a daemon and know nothing of it any more."),
    "move": ("placement:move", "Move a daemon to another node."),
    "rebalance": ("placement:rebalance", "Even the nodes out, or show what that would move."),
    "drain": ("placement:drain", "Hand all daemons of a node over and give it none."),
    "uncordon": ("placement:uncordon", "Let a drained node take daemons again."),
    "rescan": ("change:rescan", "Run the recovery scanners now."),
    "monitor": ("monitor:monitor", "Run a candidate for the monitor, without a worker."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and loads the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; ``None`` if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            meant = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {meant[0]!r}?" if meant else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error


@click.group(cls=LazyGroup)
def daemons(**_options: Any) -> None:
    """Look at and steer the daemons of the cluster.

    Commands that read take --json. Exit status: 0 done, 1 not found or failed, 2 wrong usage.
    """
    # Celery adds the app's own global options to every command; they are not for this one.
