"""``celery -A proj daemons …``: every ``celery`` command imports this module, so it imports nothing but click."""

from importlib import import_module
from typing import Any

import click

#: Each command with its module, function and line in the help, so that listing the commands imports no module.
_COMMANDS = {
    "status": ("show:status", "Show what is wrong, the leader, the nodes and the daemons by status."),
    "nodes": ("show:nodes", "List the nodes and how many daemons each one holds."),
    "list": ("show:list_daemons", "List the daemons and where each one runs."),
    "locate": ("show:locate", "Show where daemons run."),
    "describe": ("describe:describe", "Show everything that is known about one daemon."),
    "launchers": ("show:launchers", "List the launchers of the app and the nodes that have them."),
    "events": ("events:events", "Show recent events, or follow new ones."),
    "logs": ("log_lines:logs", "Show the last log lines of a daemon, or follow them."),
    "stack": ("stack:stack", "Show where the code of a daemon is now."),
    "spawn": ("change:spawn", "Record that a daemon should run."),
    "stop": ("change:stop", "Stop a daemon until it is started again."),
    "start": ("change:start", "Let a stopped daemon run again."),
    "restart": ("change:restart", "Stop a daemon and start it again."),
    "forget": ("change:forget", "Stop a daemon and delete its record."),
    "move": ("moves:move", "Move a daemon to another node."),
    "rebalance": ("moves:rebalance", "Even out the load of the nodes, or show the moves."),
    "drain": ("moves:drain", "Move all daemons off a node and give it no new ones."),
    "uncordon": ("moves:uncordon", "Let a drained node take daemons again."),
    "rescan": ("change:rescan", "Run the recovery scanners now."),
    "monitor": ("monitor:monitor", "Run a candidate for the monitor without a worker."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or return ``None`` for an unknown name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or raise a UsageError that suggests the closest name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            meant = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {meant[0]!r}?" if meant else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error


@click.group(cls=LazyGroup)
def daemons(**_options: Any) -> None:
    """Show and manage the daemons of the cluster.

    Commands that print results take --json. Exit status: 0 done, 1 not found or failed, 2 wrong usage.
    """
    # Celery adds the app's own global options to every command. This one ignores them.
