"""The commands that show the state of the cluster: one or two round trips to Redis, and no worker has to answer."""

from collections import Counter
from dataclasses import asdict
from typing import Final

import click

from celery_daemons.cli.common import Command, as_called, daemons_of, json_option, notify, prog, screen_of, wide_option
from celery_daemons.cli.documents import emit, status_document
from celery_daemons.cli.hints import hints
from celery_daemons.cli.render import age, blocked_text, first_line, plural, since, tally
from celery_daemons.domain.records import Node
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.errors import DaemonsError

#: Names without an address for which the reason is shown: each takes more round trips.
_EXPLAINED: Final = 10


@click.command("status", cls=Command)
@wide_option
@json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show what is wrong and what to do about it, then the leader, the nodes and the daemons by status."""
    lookups = daemons_of(ctx).lookups
    found = lookups.status()
    if as_json:
        emit(status_document(found))
        return
    now = lookups.now()
    leader = f"{found.leader.node} (epoch {found.leader.epoch})" if found.leader else "none"
    failing = {name: scan for name, scan in found.scanners.items() if scan.error}
    scanners = {"working": len(found.scanners) - len(failing), "failing": len(failing)}
    screen = screen_of(ctx)
    wrong = [
        *(("problem", f"{node}: {first_line(why)}") for node, why in sorted(found.problems.items())),
        *(
            ("failing", f"scanner of {name}, {age(now - scan.at_ms / 1000)} ago: {first_line(scan.error)}")
            for name, scan in sorted(failing.items())
        ),
        *(
            ("blocked", f"{node}: {blocked_text(loop, now)}")
            for node, loops in sorted(found.blocked.items())
            for loop in loops
        ),
        *(("warning", f"{node}: {first_line(why)}") for node, why in sorted(found.warnings.items())),
        *(("hint", hint) for hint in hints(found, prog(ctx))),
    ]
    screen.pairs(wrong)
    if wrong:
        screen.line()
    screen.pairs(
        [
            ("namespace", found.namespace),
            ("leader", leader),
            ("nodes", tally(found.nodes, always=("up",))),
            ("daemons", tally(found.daemons, always=("desired", "running"))),
            ("scanners", tally(scanners) or "none has run yet"),
        ]
    )


@click.command("nodes", cls=Command)
@wide_option
@json_option
@click.pass_context
def nodes(ctx: click.Context, *, as_json: bool) -> None:
    """List the nodes with status, number of daemons and remaining lease."""
    lookups = daemons_of(ctx).lookups
    found = lookups.nodes()
    if as_json:
        emit(found)
        return
    leader, now = lookups.leader(), lookups.now()
    screen = screen_of(ctx)
    screen.table(
        ["NODE", "STATUS", "DAEMONS", "LEASE", "WEIGHT", "LABELS", "LAUNCHERS", "HOST", "PID", "AGE"],
        [
            [
                node.name,
                _status_of(node, leader=leader is not None and leader.node == node.name),
                str(node.daemons),
                f"{node.lease_ms / 1000:.1f}s",
                f"{node.weight:g}",
                ",".join(node.labels) or "-",
                ",".join(node.launchers) or "-",
                node.host,
                str(node.pid),
                since(node.started_at, now),
            ]
            for node in found
        ],
        right=("DAEMONS", "LEASE", "WEIGHT", "PID", "AGE"),
        optional=("PID", "HOST", "LABELS", "WEIGHT", "AGE", "LAUNCHERS"),
    )
    for node in found:
        if node.problem is not None:
            screen.line(f"{node.name} takes no daemons: {first_line(node.problem)}")
    counts = Counter(str(node.status) for node in found)
    held = plural(sum(node.daemons for node in found), "daemon")
    screen.line(f"{plural(len(found), 'node')}: {tally(counts)}; {held}" if found else "0 nodes")


def _status_of(node: Node, *, leader: bool) -> str:
    more = [", leader"] if leader else []
    more += [", cannot serve"] if node.problem is not None else []
    more += [", blocked"] if node.blocked else []
    return "".join((node.status, *more))


@click.command("list", cls=Command)
@click.option("--node", metavar="NODE", help="Only daemons on this node.")
@click.option("--launcher", metavar="LAUNCHER", help="Only daemons of this launcher.")
@click.option("--status", type=click.Choice([*map(str, DaemonStatus)]), help="Only daemons in this status.")
@wide_option
@json_option
@click.pass_context
def list_daemons(
    ctx: click.Context, *, node: str | None, launcher: str | None, status: str | None, as_json: bool
) -> None:
    """List all known daemons by name, or those that match all given options.

    Exit status 1 for a node or launcher that is not known.
    """
    lookups = daemons_of(ctx).lookups
    if node is not None:
        known = [one.name for one in lookups.nodes()]
        if node not in known:
            raise DaemonsError(f"no node {node} is registered (registered: {', '.join(known) or 'none'})")
    found = sorted(lookups.list(node=node, launcher=launcher, status=status), key=lambda record: record.name)
    if launcher is not None and not found:
        have = sorted({name for one in lookups.nodes() for name in one.launchers})
        if launcher not in have:
            raise DaemonsError(f"no node has launcher {launcher}, and no daemon (known: {', '.join(have) or 'none'})")
    if as_json:
        emit(found)
        return
    now = lookups.now()
    screen = screen_of(ctx)
    screen.table(
        ["NAME", "LAUNCHER", "STATUS", "NODE", "PID", "AGE", "RESTARTS", "ERROR"],
        [
            [
                record.name,
                record.launcher,
                record.status,
                record.node or "-",
                str(record.pid or "-"),
                since(record.started_at, now),
                str(record.restarts),
                blocked_text(record.blocked, now) if record.blocked else first_line(record.error),
            ]
            for record in found
        ],
        right=("PID", "AGE", "RESTARTS"),
        optional=("PID", "LAUNCHER", "AGE", "RESTARTS"),
    )
    counts = Counter(str(record.status) for record in found)
    screen.line(plural(len(found), "daemon") + (f": {tally(counts)}" if found else ""))


@click.command("locate", cls=Command)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@wide_option
@json_option
@click.pass_context
def locate(ctx: click.Context, *, names: tuple[str, ...], as_json: bool) -> None:
    """Show where daemons run.

    A node whose lease has ended is never shown. Exit status 1 if any of the daemons has no address.
    """
    lookups = daemons_of(ctx).lookups
    found = lookups.locate_many(names)
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if as_json:
        emit({name: found.get(name) for name in names})
    elif found:
        now = lookups.now()
        screen_of(ctx).table(
            ["NAME", "NODE", "STATUS", "TOKEN", "QUEUE", "HOST", "PID", "AGE"],
            [
                [
                    address.name,
                    address.node,
                    address.status,
                    str(address.token),
                    address.queue or "-",
                    address.host,
                    str(address.pid or "-"),
                    since(address.started_at, now),
                ]
                for address in (found[name] for name in dict.fromkeys(names) if name in found)
            ],
            right=("TOKEN", "PID", "AGE"),
            optional=("QUEUE", "HOST", "AGE", "PID", "TOKEN"),
        )
    for name in missing[:_EXPLAINED]:
        notify(as_called(ctx, f"daemon {name}: no address: {lookups.why_not(name)}"))
    if len(missing) > _EXPLAINED:
        notify(f"{len(missing) - _EXPLAINED} more have no address")
    if missing:
        ctx.exit(1)


@click.command("launchers", cls=Command)
@wide_option
@json_option
@click.pass_context
def launchers(ctx: click.Context, *, as_json: bool) -> None:
    """List the launchers of the app, with options and the nodes that have each launcher."""
    daemons = daemons_of(ctx, modules=True)
    live = [node for node in daemons.lookups.nodes() if node.status is not NodeStatus.LOST]
    found = [
        {
            "name": name,
            **asdict(launcher.options),
            "scanner": launcher.scanner is not None,
            "nodes": [node.name for node in live if name in node.launchers],
        }
        for name, launcher in sorted(daemons.launchers.items())
    ]
    if as_json:
        emit(found)
        return
    screen = screen_of(ctx)
    screen.table(
        ["LAUNCHER", "ISOLATION", "RESTART", "LABELS", "SCANNER", "NODES"],
        [
            [
                one["name"],
                one["isolation"],
                one["restart"],
                ",".join(one["labels"]) or "-",
                "yes" if one["scanner"] else "no",
                ",".join(one["nodes"]) or "none",
            ]
            for one in found
        ],
        optional=("LABELS", "RESTART", "ISOLATION"),
    )
    screen.line(f"{plural(len(found), 'launcher')}; {plural(len(live), 'node')}")
