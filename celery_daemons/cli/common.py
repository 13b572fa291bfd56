"""What all commands use: the app's Daemons, errors as one line, and common options."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from celery_daemons.cli.render import Screen, spinner
from celery_daemons.errors import ConfigurationError, DaemonsError

if TYPE_CHECKING:
    from celery_daemons.app import Daemons

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds that ``--wait`` without a number waits: three times the default ``stop_grace`` of a launcher.
DEFAULT_WAIT: Final = 30.0


class Command(click.Command):
    """A command that reports a DaemonsError as a line on standard error and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DaemonsError as error:
            raise click.ClickException(as_called(ctx, " ".join(str(error).split()))) from error


def read_seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return an option's finite, non-negative number of seconds. Raises BadParameter for anything else."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds; put a --wait without a number last") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise click.BadParameter(f"{value!r} is not a valid wait; give a finite number of seconds, 0 or more")
    return seconds


#: The key of ``--wide`` in the metadata of a context.
_WIDE: Final = "celery_daemons.wide"

#: The JSON names of Python types.
_JSON_KINDS: Final[dict[type, str]] = {list: "array", dict: "object"}


def json_of(kind: type, example: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return a click callback that decodes a JSON array (``list``) or object (``dict``).

    The callback raises BadParameter for anything else.
    """

    def read(_ctx: click.Context, _param: click.Parameter, value: str) -> Any:
        try:
            document = json.loads(value, parse_constant=_refuse)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not JSON ({error}); write it as in {example}") from error
        if not isinstance(document, kind):
            raise click.BadParameter(f"{value!r} is not a JSON {_JSON_KINDS[kind]}; write it as in {example}")
        return document

    return read


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def json_option(command: F) -> F:
    """Add the option ``--json``."""
    return click.option("as_json", "--json", is_flag=True, help="Print JSON, for programs.")(command)


def wide_option(command: F) -> F:
    """Add the option ``--wide``, which :func:`screen_of` reads."""

    def note(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[_WIDE] = value

    return click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=note,
        help="Show all columns and whole names, however narrow the terminal is.",
    )(command)


def wait_option(condition: str) -> Callable[[F], F]:
    """Add the option ``--wait``; ``condition`` is the clause after "wait until" in the help text."""
    return click.option(
        "--wait",
        callback=read_seconds,
        is_flag=False,
        flag_value=str(DEFAULT_WAIT),
        metavar="[SECONDS]",
        help=f"Wait until {condition}; fail after SECONDS (default: {DEFAULT_WAIT:g}).",
    )


def daemons_of(ctx: click.Context, *, modules: bool = False) -> "Daemons":
    """Return the Daemons of the command's app.

    With ``modules``, first import the modules that register launchers. Raises ConfigurationError if no app is given,
    if the app has no Daemons, or if its modules cannot be imported.
    """
    from celery_daemons.app import Daemons
    from celery_daemons.client.actor import acting_as, user_and_process
    from celery_daemons.launcher import has_daemons

    app = ctx.obj.app
    attached = has_daemons(app)
    if not attached and not ctx.find_root().params.get("app"):
        raise ConfigurationError("no app is given: name the app that has the Daemons, as in `celery -A proj daemons …`")
    if modules or not attached:
        try:
            app.loader.import_default_modules()
        except Exception as error:  # the modules are the user's, and may raise anything
            raise ConfigurationError(
                f"the app's modules cannot be imported ({type(error).__name__}: {error})"
            ) from error
    ctx.with_resource(acting_as(user_and_process()))
    daemons = Daemons.of(app)
    why = daemons.participation.why_recorded()
    if why is not None:
        raise ConfigurationError(f"{why}: this app has no cluster to show or change")
    return daemons


def prog(ctx: click.Context) -> str:
    """Return the user's command line up to ``daemons``, for messages that suggest a command."""
    return f"{_celery(ctx)} daemons"


def _celery(ctx: click.Context) -> str:
    app = ctx.find_root().params.get("app")
    return f"celery -A {app}" if isinstance(app, str) else "celery"


def as_called(ctx: click.Context, message: str) -> str:
    """Return a message with ``celery -A …`` replaced by the start of the user's command line."""
    return message.replace("celery -A …", _celery(ctx))


def screen_of(ctx: click.Context) -> Screen:
    """Return standard output, in colours on a terminal unless ``celery --no-color`` or NO_COLOR is set.

    With ``--wide``, nothing is fitted to the terminal.
    """
    if not sys.stdout.isatty():
        return Screen()
    wide = ctx.meta.get(_WIDE, False)
    return Screen(colour=_colours(ctx), width=None if wide else shutil.get_terminal_size().columns)


def _colours(ctx: click.Context) -> bool:
    return not ctx.obj.no_color and "NO_COLOR" not in os.environ


def notify(message: str) -> None:
    """Print a message that is not part of the result to standard error."""
    click.echo(message, err=True)


@contextmanager
def waiting(ctx: click.Context, message: str, *, wait: float | None) -> Iterator[None]:
    """Show a spinner while the command waits, if standard error is a terminal."""
    if wait is None or not sys.stderr.isatty() or not _colours(ctx):
        yield
        return
    with spinner(message):
        yield
