"""What the commands share: the app's Daemons, expected failures as one line, and the options that many take."""

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

#: Seconds of a ``--wait`` that does not say how long: three times the grace that a stopping daemon has by default.
DEFAULT_WAIT: Final = 30.0


class Command(click.Command):
    """A command whose expected failures are one line on standard error and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DaemonsError as error:
            raise click.ClickException(as_called(ctx, " ".join(str(error).split()))) from error


def read_seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """A finite number of seconds, not negative, from an option; anything else is wrong usage."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of seconds; a --wait without one goes last") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise click.BadParameter(f"{value!r} is not a time to wait")
    return seconds


def json_of(kind: type, example: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A reader of options that hold a JSON document of one kind; anything else is wrong usage."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str) -> Any:
        try:
            document = json.loads(value, parse_constant=_refuse)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not JSON ({error}); write it as in {example}") from error
        if not isinstance(document, kind):
            raise click.BadParameter(f"{value!r} is another kind of JSON; write it as in {example}")
        return document

    return read


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("as_json", "--json", is_flag=True, help="Print a document for programs.")(command)


def wait_option(what: str) -> Callable[[F], F]:
    """Add ``--wait``; ``what`` says for what."""
    return click.option(
        "--wait",
        callback=read_seconds,
        is_flag=False,
        flag_value=str(DEFAULT_WAIT),
        metavar="[SECONDS]",
        help=f"Return once {what}, or fail; {DEFAULT_WAIT:g} seconds unless given.",
    )


def daemons_of(ctx: click.Context, *, modules: bool = False) -> "Daemons":
    """The Daemons of the command's app, with all modules that register launchers imported if ``modules``."""
    from celery_daemons.app import Daemons

    app = ctx.obj.app
    carried = getattr(app, "_celery_daemons", None) is not None
    if not carried and not ctx.find_root().params.get("app"):
        raise ConfigurationError("no app is given: name the one that has the Daemons, as in `celery -A proj daemons …`")
    if modules or not carried:
        try:
            app.loader.import_default_modules()
        except Exception as error:  # the modules are the user's, and may raise anything
            raise ConfigurationError(
                f"the app's modules cannot be imported ({type(error).__name__}: {error})"
            ) from error
    return Daemons.of(app)


def prog(ctx: click.Context) -> str:
    """How this command was called, up to ``daemons``: for messages that say what to do next."""
    app = ctx.find_root().params.get("app")
    return f"celery -A {app} daemons" if isinstance(app, str) else "celery daemons"


def as_called(ctx: click.Context, message: str) -> str:
    """A message of the package with the commands that it names as this one was called."""
    return message.replace("celery -A … daemons", prog(ctx))


def screen_of(ctx: click.Context) -> Screen:
    """Standard output: in colours if it is a terminal, and neither ``celery --no-color`` nor NO_COLOR is given."""
    if not sys.stdout.isatty():
        return Screen()
    return Screen(colour=_colours(ctx), width=shutil.get_terminal_size().columns)


def _colours(ctx: click.Context) -> bool:
    return not ctx.obj.no_color and "NO_COLOR" not in os.environ


def tell(message: str) -> None:
    """Say something that is not part of the answer, on standard error."""
    click.echo(message, err=True)


@contextmanager
def waiting(ctx: click.Context, message: str, *, wait: float | None) -> Iterator[None]:
    """Show that the command waits, to a person at a terminal."""
    if wait is None or not sys.stderr.isatty() or not _colours(ctx):
        yield
        return
    with spinner(message):
        yield
