"""The options that the package adds to ``celery worker``; :mod:`celery_daemons.worker.steps` reads their values."""

import click


def worker_options() -> list[click.Option]:
    """Return the options ``--no-daemons``, ``--daemon-labels`` and ``--daemon-weight``."""
    return [
        click.Option(["--no-daemons"], is_flag=True, help="Do not join the cluster of daemons."),
        click.Option(["--daemon-labels"], metavar="A,B", help="Labels of this node, for launchers that require them."),
        click.Option(
            ["--daemon-weight"], type=float, help="Share of the daemons that this node takes, relative to other nodes."
        ),
    ]
