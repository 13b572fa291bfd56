"""The commands that change what should run; the monitor and the nodes carry the changes out."""

from typing import Any

import click

from celery_daemons.cli.common import Command, daemons_of, json_of, json_option, notify, prog, wait_option, waiting
from celery_daemons.cli.documents import emit
from celery_daemons.cli.hints import basic_hints
from celery_daemons.client.lookups import Lookups
from celery_daemons.domain.records import Address
from celery_daemons.domain.states import Desired, NodeStatus
from celery_daemons.errors import DaemonsError


@click.command("spawn", cls=Command)
@click.argument("launcher")
@click.argument("name")
@click.option(
    "--args",
    callback=json_of(list, """'["x", 1]'"""),
    default="[]",
    metavar="JSON",
    help="Positional arguments as a JSON array.",
)
@click.option(
    "--kwargs",
    callback=json_of(dict, """'{"path": "x"}'"""),
    default="{}",
    metavar="JSON",
    help="Keyword arguments as a JSON object.",
)
@wait_option("the daemon runs")
@click.option("--replace", is_flag=True, help="If another spec has this name, replace it and restart the daemon.")
@json_option
@click.pass_context
def spawn(
    ctx: click.Context,
    *,
    launcher: str,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    wait: float | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Record that daemon NAME of LAUNCHER should run.

    Running the command again with the same arguments changes nothing.
    """
    daemons = daemons_of(ctx, modules=True)
    chosen = daemons.launchers[launcher]
    record = daemons.lookups.record(name)
    stopped = record is not None and record.desired is Desired.STOPPED
    with waiting(ctx, f"daemon {name}: waiting until it runs", wait=wait):
        # Not for a stopped daemon: it would not run.
        address = daemons.spawn(name, chosen, args=args, kwargs=kwargs, replace=replace, wait=None if stopped else wait)
    if stopped:
        message = f"daemon {name} is recorded, but it is stopped: `{prog(ctx)} start {name}` starts it"
        if wait is not None:
            raise DaemonsError(message)
        notify(message)
    elif address is None:
        _print_hints(ctx, daemons.lookups)
    _print_address(ctx, name, address, as_json=as_json)


@click.command("stop", cls=Command)
@click.argument("name")
@wait_option("the daemon has stopped")
@click.pass_context
def stop(ctx: click.Context, *, name: str, wait: float | None) -> None:
    """Stop a daemon until it is started again.

    A stopped daemon stays stopped even if a scanner lists it.
    """
    with waiting(ctx, f"daemon {name}: waiting until it has stopped", wait=wait):
        daemons_of(ctx).stop(name, wait=wait)
    click.echo(f"daemon {name}: {'stopped' if wait is not None else 'will stop'}")


@click.command("start", cls=Command)
@click.argument("name")
@click.pass_context
def start(ctx: click.Context, *, name: str) -> None:
    """Let a stopped daemon run again."""
    daemons = daemons_of(ctx)
    daemons.start(name)
    _print_hints(ctx, daemons.lookups)
    click.echo(f"daemon {name}: will run")


@click.command("restart", cls=Command)
@click.argument("name")
@wait_option("the daemon runs again")
@json_option
@click.pass_context
def restart(ctx: click.Context, *, name: str, wait: float | None, as_json: bool) -> None:
    """Restart a daemon under a new token, perhaps on another node."""
    daemons = daemons_of(ctx)
    record = daemons.lookups.record(name)
    if record is not None and record.desired is Desired.STOPPED:
        raise DaemonsError(f"daemon {name} is stopped: `{prog(ctx)} start {name}` starts it")
    with waiting(ctx, f"daemon {name}: waiting until it runs again", wait=wait):
        address = daemons.restart(name, wait=wait)
    if wait is None and not as_json:
        click.echo(f"daemon {name}: will restart")
        return
    _print_address(ctx, name, address, as_json=as_json)


@click.command("forget", cls=Command)
@click.argument("name")
@click.pass_context
def forget(ctx: click.Context, *, name: str) -> None:
    """Stop a daemon and delete its record.

    A scanner that still lists the daemon records it again.
    """
    if not daemons_of(ctx).forget(name):
        raise DaemonsError(f"no daemon {name} is known; `{prog(ctx)} list` shows all daemons")
    click.echo(f"daemon {name}: forgotten")


@click.command("rescan", cls=Command)
@click.argument("launcher", required=False)
@click.pass_context
def rescan(ctx: click.Context, *, launcher: str | None) -> None:
    """Run the recovery scanner of a launcher, or all scanners, now."""
    daemons = daemons_of(ctx, modules=True)
    daemons.rescan(launcher)
    if daemons.lookups.leader() is None:
        notify("no monitor is elected: the next one runs every scanner at once")
    click.echo(f"launcher {launcher}: will be scanned" if launcher else "all launchers with a scanner: will be scanned")


def _print_address(ctx: click.Context, name: str, address: Address | None, *, as_json: bool) -> None:
    if as_json:
        emit(address)
    elif address is None:
        click.echo(f"daemon {name}: recorded; `{prog(ctx)} locate {name}` shows where it runs")
    else:
        click.echo(f"daemon {name}: {address.status} on {address.node}, token {address.token}")


def _print_hints(ctx: click.Context, lookups: Lookups) -> None:
    nodes = sum(node.status is not NodeStatus.LOST for node in lookups.nodes())
    for hint in basic_hints(has_leader=lookups.leader() is not None, nodes=nodes, prog=prog(ctx)):
        notify(hint)
