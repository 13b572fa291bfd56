"""The directive ``command-help``: the help texts of all commands, taken from the program."""

from typing import Any

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from celery_daemons.cli import daemons

PROG = "celery -A proj daemons"
#: The longest line of a help text, in characters.
WIDTH = 100


def help_texts() -> dict[str, str]:
    """Return each command line and its help text, the group first."""
    parent = click.Context(daemons, info_name=PROG, max_content_width=WIDTH, terminal_width=WIDTH)
    texts = {PROG: daemons.get_help(parent)}
    for name in daemons.list_commands(parent):
        command = daemons.get_command(parent, name)
        assert command is not None, name
        context = click.Context(command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH)
        texts[f"{PROG} {name}"] = command.get_help(context)
    return texts


class CommandHelp(SphinxDirective):
    """Show the help text of every command in a section of its own."""

    def run(self) -> list[nodes.Node]:
        """Return one section per command."""
        found: list[nodes.Node] = []
        for line, text in help_texts().items():
            section = nodes.section(ids=[nodes.make_id(line.removeprefix("celery -A proj "))])
            section += nodes.title(text=line.removeprefix("celery -A proj "))
            section += nodes.literal_block(text, text, language="text")
            found.append(section)
        return found


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
