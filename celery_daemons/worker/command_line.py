"""What the package adds to the command line ``celery worker``: options, and errors as one line.

:mod:`celery_daemons.worker.steps` reads the values of the options.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from celery_daemons.errors import DaemonsError


def worker_options() -> list[click.Option]:
    """Return the options ``--no-daemons``, ``--daemon-labels`` and ``--daemon-weight``."""
    return [
        click.Option(["--no-daemons"], is_flag=True, help="Do not join the cluster of daemons."),
        click.Option(["--daemon-labels"], metavar="A,B", help="Labels of this node, for launchers that require them."),
        click.Option(
            ["--daemon-weight"], type=float, help="Share of the daemons that this node takes, relative to other nodes."
        ),
    ]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Report a DaemonsError of the block as one line and exit status 1, if a command line has started the worker.

    A program that creates the worker by itself gets the DaemonsError.
    """
    try:
        yield
    except DaemonsError as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise click.ClickException(
            f"the worker does not start: {error} (with --no-daemons it starts as a plain worker)"
        ) from error
