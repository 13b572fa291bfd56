"""``manage.py daemons …``: the commands of ``celery -A proj daemons``, for the project's own Celery app."""

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from celery_daemons.contrib.django.loaded_apps import project_daemons
from celery_daemons.errors import ConfigurationError
from celery_daemons.forkserver.apploader import import_string


class DaemonsCommand(BaseCommand):  # type: ignore[misc]
    """Show and manage the daemons of the cluster."""

    help = "Show and manage the daemons of the cluster: what `celery -A proj daemons` does. See `daemons --help`."
    #: What the commands need is checked by the commands, with the same messages as under ``celery``.
    requires_system_checks: Sequence[str] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass everything after ``daemons`` on, except the options that ``manage.py`` itself has taken."""
        parser = CommandParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")
        parser.add_argument("--pythonpath")
        _, arguments = parser.parse_known_args(argv[2:])
        try:
            status = _run(arguments)
        except CommandError as error:
            self.stderr.write(str(error))
            status = error.returncode
        raise SystemExit(status)

    def add_arguments(self, parser: CommandParser) -> None:
        """Take all arguments, for ``call_command("daemons", …)``."""
        parser.add_argument("args", nargs=argparse.REMAINDER)

    def handle(self, *args: str, **_: Any) -> None:
        """Run a command for ``call_command``. Raises CommandError with the exit status."""
        status = _run(args)
        if status:
            raise CommandError(f"daemons {' '.join(args)}: exit status {status}", returncode=status)


def _run(arguments: Sequence[str]) -> int:
    """Run ``celery -A <app> daemons`` in this process and return the exit status."""
    from celery.bin.celery import celery

    try:
        app = import_string(project_daemons().app)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    try:
        celery.main(["-A", app, "daemons", *arguments], prog_name="celery", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


#: The name by which Django finds the class.
Command = DaemonsCommand
