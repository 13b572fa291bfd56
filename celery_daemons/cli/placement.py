"""The commands about where daemons run: moving one, evening the nodes out, emptying one."""

from collections import Counter

import click

from celery_daemons.cli.documents import emit
from celery_daemons.cli.render import plural
from celery_daemons.cli.session import (
    Command,
    daemons_of,
    json_option,
    prog,
    screen_of,
    tell,
    wait_option,
    waiting,
)
from celery_daemons.client.cluster_client import spelled
from celery_daemons.domain.states import NodeStatus


@click.command("move", cls=Command)
@click.argument("name")
@click.option("--to", metavar="NODE", help="The node it shall run on; without, any other that takes it.")
@wait_option("it runs there")
@json_option
@click.pass_context
def move(ctx: click.Context, *, name: str, to: str | None, wait: float | None, as_json: bool) -> None:
    """Stop a daemon and start it on another node, under a new token. It stays there, as any daemon stays."""
    cluster = daemons_of(ctx).cluster
    with waiting(ctx, f"daemon {name}: waiting until it runs elsewhere", wait=wait):
        address = cluster.move(name, to, wait)
    if as_json:
        emit(address)
    elif address is None:
        click.echo(f"daemon {name}: will move{f' to {to}' if to else ''}")
    else:
        click.echo(f"daemon {name}: {address.status} on {address.node}, token {address.token}")


@click.command("rebalance", cls=Command)
@click.option("--dry-run", is_flag=True, help="Show the moves, and make none.")
@click.option("--pause", is_flag=True, help="Let the monitor move nothing that may stay where it is.")
@click.option("--resume", is_flag=True, help="Let it do so again.")
@json_option
@click.pass_context
def rebalance(ctx: click.Context, *, dry_run: bool, pause: bool, resume: bool, as_json: bool) -> None:
    """Even the nodes out by as few moves as that takes, some at a time, and show them with their reasons."""
    if dry_run + pause + resume > 1:
        raise click.UsageError("--dry-run, --pause and --resume exclude each other", ctx)
    if pause or resume:
        daemons_of(ctx).cluster.pause_rebalance(paused=pause)
        click.echo("rebalancing: paused" if pause else "rebalancing: goes on")
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
    told = ", ".join(f"{count} to {node}" for node, count in sorted(gains.items()))
    screen.line(f"{plural(len(moves), 'daemon')} {'would move' if dry_run else 'will move'}: {told}")
    if not dry_run and daemons.cluster.leader() is None:
        tell("nobody leads now: ask again once somebody does")


@click.command("drain", cls=Command)
@click.argument("node")
@wait_option("it holds none any more")
@click.pass_context
def drain(ctx: click.Context, *, node: str, wait: float | None) -> None:
    """Hand all daemons of a node over to others, and give it none until it is uncordoned or starts anew."""
    daemons = daemons_of(ctx, modules=True)
    daemons.cluster.drain(node)
    if not any(other.status is NodeStatus.UP for other in daemons.cluster.nodes()):
        tell("no other node takes daemons: what runs there stays until one does")
    elif stay := daemons.stranded(node):
        tell(f"no other node has the launcher and labels of {spelled(stay)}, which stay")
    if wait is not None:
        with waiting(ctx, f"node {node}: waiting until it holds no daemons", wait=wait):
            daemons.drain(node, wait=wait)
    click.echo(f"node {node}: {'drained' if wait is not None else 'draining'}")
    if wait is None:
        tell(f"`{prog(ctx)} uncordon {node}` lets it take daemons again")


@click.command("uncordon", cls=Command)
@click.argument("node")
@click.pass_context
def uncordon(ctx: click.Context, *, node: str) -> None:
    """Let a drained node take daemons again."""
    daemons_of(ctx).uncordon(node)
    click.echo(f"node {node}: takes daemons")
