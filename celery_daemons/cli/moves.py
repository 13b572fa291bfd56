"""The commands about where daemons run: move a daemon, rebalance the nodes, drain a node."""

from collections import Counter

import click

from celery_daemons.cli.common import (
    Command,
    daemons_of,
    json_option,
    notify,
    prog,
    screen_of,
    wait_option,
    waiting,
    wide_option,
)
from celery_daemons.cli.documents import emit
from celery_daemons.cli.render import plural
from celery_daemons.client.wording import listed
from celery_daemons.domain.states import NodeStatus


@click.command("move", cls=Command)
@click.argument("name")
@click.option("--to", metavar="NODE", help="The node to move to (default: any other node that can take the daemon).")
@wait_option("the daemon runs there")
@json_option
@click.pass_context
def move(ctx: click.Context, *, name: str, to: str | None, wait: float | None, as_json: bool) -> None:
    """Stop a daemon and start it on another node, under a new token.

    The daemon is not pinned to that node: it may be moved again like any other daemon.
    """
    daemons = daemons_of(ctx)
    with waiting(ctx, f"daemon {name}: waiting until it runs elsewhere", wait=wait):
        address = daemons.move(name, to, wait)
    if as_json:
        emit(address)
    elif address is None:
        click.echo(f"daemon {name}: will move{f' to {to}' if to else ''}")
    else:
        click.echo(f"daemon {name}: {address.status} on {address.node}, token {address.token}")


@click.command("rebalance", cls=Command)
@click.option("--dry-run", is_flag=True, help="Show the moves without making them.")
@click.option("--pause", is_flag=True, help="Stop moving daemons that may stay where they are.")
@click.option("--resume", is_flag=True, help="Resume rebalancing after --pause.")
@wide_option
@json_option
@click.pass_context
def rebalance(ctx: click.Context, *, dry_run: bool, pause: bool, resume: bool, as_json: bool) -> None:
    """Even out the load of the nodes with as few moves as possible.

    Prints the moves with their reasons. The monitor makes a limited number of them at a time
    (daemons_rebalance_limit).
    """
    if dry_run + pause + resume > 1:
        raise click.UsageError("--dry-run, --pause and --resume exclude each other", ctx)
    if pause or resume:
        daemons_of(ctx).cluster.pause_rebalance(paused=pause)
        if as_json:
            emit({"rebalance_paused": pause})
        else:
            click.echo("rebalancing: paused" if pause else "rebalancing: resumed")
        return
    daemons = daemons_of(ctx, modules=True)
    moves = daemons.rebalance(dry_run=dry_run)
    if as_json:
        emit(moves)
        return
    screen = screen_of(ctx)
    if not moves:
        screen.line("nothing to move: every node holds about its share")
        return
    screen.table(["NAME", "FROM", "TO", "WHY"], [[one.name, one.source, one.target, one.why] for one in moves])
    gains = Counter(one.target for one in moves)
    summary = ", ".join(f"{count} to {node}" for node, count in sorted(gains.items()))
    screen.line(f"{plural(len(moves), 'daemon')} {'would move' if dry_run else 'will move'}: {summary}")
    if not dry_run and daemons.lookups.leader() is None:
        notify("no monitor is elected: run the command again once one is")


@click.command("drain", cls=Command)
@click.argument("node")
@wait_option("the node holds no daemons")
@click.pass_context
def drain(ctx: click.Context, *, node: str, wait: float | None) -> None:
    """Move all daemons off a node and give it no new ones.

    The node takes daemons again once it is uncordoned or restarted.
    """
    daemons = daemons_of(ctx, modules=True)
    daemons.drain(node)
    if not any(other.status is NodeStatus.UP and other.problem is None for other in daemons.lookups.nodes()):
        notify("no other node takes daemons: the daemons on this node stay until one does")
    elif stay := daemons.stranded(node):
        notify(f"not moved, as no other node has their launcher and labels: {listed(stay)}")
    if wait is not None:
        with waiting(ctx, f"node {node}: waiting until it holds no daemons", wait=wait):
            daemons.drain(node, wait=wait)
    click.echo(f"node {node}: {'drained' if wait is not None else 'draining'}")
    if wait is None:
        notify(f"`{prog(ctx)} uncordon {node}` lets it take daemons again")


@click.command("uncordon", cls=Command)
@click.argument("node")
@click.pass_context
def uncordon(ctx: click.Context, *, node: str) -> None:
    """Let a drained node take daemons again."""
    daemons_of(ctx).uncordon(node)
    click.echo(f"node {node}: takes daemons")
