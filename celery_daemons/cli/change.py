"""The commands that change what is wanted; the monitor and the nodes do the rest."""

from typing import Any

import click

from celery_daemons.cli.documents import emit
from celery_daemons.cli.hints import basic_hints
from celery_daemons.cli.session import Command, daemons_of, json_of, json_option, prog, tell, wait_option, waiting
from celery_daemons.client.cluster_client import ClusterClient
from celery_daemons.domain.records import Address
from celery_daemons.domain.states import Desired, NodeStatus
from celery_daemons.errors import DaemonsError


@click.command("spawn", cls=Command)
@click.argument("launcher")
@click.argument("name")
@click.option("--args", callback=json_of(list, """'["x", 1]'"""), default="[]", metavar="JSON", help="A JSON array.")
@click.option(
    "--kwargs", callback=json_of(dict, """'{"path": "x"}'"""), default="{}", metavar="JSON", help="A JSON object."
)
@wait_option("it runs")
@click.option("--replace", is_flag=True, help="Replace another spec under this name, and the daemon that runs by it.")
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
    """Record that a daemon should run, under NAME by LAUNCHER. The same again changes nothing."""
    daemons = daemons_of(ctx, modules=True)
    kind, cluster = daemons.launchers[launcher], daemons.cluster
    record = cluster.record(name)
    stopped = record is not None and record.desired is Desired.STOPPED
    with waiting(ctx, f"daemon {name}: waiting until it runs", wait=wait):
        # A stopped one would be waited for in vain.
        address = daemons.spawn(name, kind, args=args, kwargs=kwargs, replace=replace, wait=None if stopped else wait)
    if stopped:
        told = f"daemon {name} is recorded, but was stopped: `{prog(ctx)} start {name}` lets it run"
        if wait is not None:
            raise DaemonsError(told)
        tell(told)
    elif address is None:
        _tell_hints(ctx, cluster)
    _answer(ctx, name, address, as_json=as_json)


@click.command("stop", cls=Command)
@click.argument("name")
@wait_option("it has stopped")
@click.pass_context
def stop(ctx: click.Context, *, name: str, wait: float | None) -> None:
    """Stop a daemon. It stays stopped, whatever a scanner lists, until it is started."""
    with waiting(ctx, f"daemon {name}: waiting until it has stopped", wait=wait):
        daemons_of(ctx).stop(name, wait=wait)
    click.echo(f"daemon {name}: {'stopped' if wait is not None else 'will stop'}")


@click.command("start", cls=Command)
@click.argument("name")
@click.pass_context
def start(ctx: click.Context, *, name: str) -> None:
    """Let a stopped daemon run again."""
    cluster = daemons_of(ctx).cluster
    cluster.start(name)
    _tell_hints(ctx, cluster)
    click.echo(f"daemon {name}: will run")


@click.command("restart", cls=Command)
@click.argument("name")
@wait_option("it runs again")
@json_option
@click.pass_context
def restart(ctx: click.Context, *, name: str, wait: float | None, as_json: bool) -> None:
    """Stop a daemon and start it anew, under a new token, perhaps on another node."""
    cluster = daemons_of(ctx).cluster
    record = cluster.record(name)
    if record is not None and record.desired is Desired.STOPPED:
        raise DaemonsError(f"daemon {name} is stopped: `{prog(ctx)} start {name}` lets it run again")
    with waiting(ctx, f"daemon {name}: waiting until it runs again", wait=wait):
        address = cluster.restart(name, wait=wait)
    if wait is None and not as_json:
        click.echo(f"daemon {name}: will be started anew")
        return
    _answer(ctx, name, address, as_json=as_json)


@click.command("forget", cls=Command)
@click.argument("name")
@click.pass_context
def forget(ctx: click.Context, *, name: str) -> None:
    """Stop a daemon and know nothing of it any more; a scanner that still lists it brings it back."""
    if not daemons_of(ctx).forget(name):
        raise DaemonsError(f"no daemon {name} is known; `{prog(ctx)} list` shows those that are")
    click.echo(f"daemon {name}: forgotten")


@click.command("rescan", cls=Command)
@click.argument("launcher", required=False)
@click.pass_context
def rescan(ctx: click.Context, *, launcher: str | None) -> None:
    """Run the recovery scanner of one launcher now, or all of them."""
    daemons = daemons_of(ctx, modules=True)
    daemons.rescan(launcher)
    if daemons.cluster.leader() is None:
        tell("nobody leads now; whoever is elected scans at once")
    click.echo(
        f"launcher {launcher}: will be scanned" if launcher else "every launcher with a scanner: will be scanned"
    )


def _answer(ctx: click.Context, name: str, address: Address | None, *, as_json: bool) -> None:
    if as_json:
        emit(address)
    elif address is None:
        click.echo(f"daemon {name}: recorded; `{prog(ctx)} locate {name}` tells where it runs")
    else:
        click.echo(f"daemon {name}: {address.status} on {address.node}, token {address.token}")


def _tell_hints(ctx: click.Context, cluster: ClusterClient) -> None:
    nodes = sum(node.status is not NodeStatus.LOST for node in cluster.nodes())
    for hint in basic_hints(leads=cluster.leader() is not None, nodes=nodes, prog=prog(ctx)):
        tell(hint)
