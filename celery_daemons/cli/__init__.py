"""``celery -A proj daemons …``; loaded at every ``celery`` command, so it imports nothing but click."""

import click


@click.group(help="Look at and steer the daemons of the cluster.")
def daemons() -> None:
    """The group that the entry point names."""
