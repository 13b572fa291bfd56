"""``stack``: show where the code of a daemon is."""

from collections.abc import Iterator

import click

from celery_daemons.cli.common import Command, daemons_of, json_option, screen_of
from celery_daemons.cli.documents import emit
from celery_daemons.cli.render import cell
from celery_daemons.client.node_questions import NodeQuestions
from celery_daemons.wire.inspection import Stack, ThreadStack


@click.command("stack", cls=Command)
@click.argument("name")
@json_option
@click.pass_context
def stack(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Show where the code of a daemon is now, innermost line last.

    For a coroutine daemon, shows the coroutines that it awaits; for a thread, its stack; for a process, the stacks of
    all threads.
    """
    daemons = daemons_of(ctx)
    node, found = NodeQuestions(daemons.cluster.store, daemons.lookups).stack(name)
    if as_json:
        emit(
            {
                "name": name,
                "node": node,
                "kind": found.kind,
                "pid": found.pid,
                "token": found.token,
                "holds_loop_for": found.holds_loop_for,
                "cpu_seconds": found.cpu_seconds,
                "stalls": found.stalls,
                "stall_seconds": found.stall_seconds,
                "stacks": found.stacks,
            }
        )
        return
    screen = screen_of(ctx)
    for line in _head(name, node, found):
        screen.line(line)
    for one in found.stacks:
        screen.line()
        for line in _lines(one):
            screen.line(cell(line))


def _head(name: str, node: str, found: Stack) -> Iterator[str]:
    yield f"daemon {name} on {node}: {found.kind} in process {found.pid}, token {found.token}"
    if found.holds_loop_for is not None:
        yield f"holds the event loop for {found.holds_loop_for:.3f} s now"
    if found.cpu_seconds is not None:
        yield f"processor time {found.cpu_seconds:.3f} s, {found.stalls} stalls of {found.stall_seconds:.1f} s"


def _lines(one: ThreadStack) -> Iterator[str]:
    yield f"{one.name}:"
    if not one.frames:
        yield "  no frames: it has not started, or has ended"
    for frame in one.frames:
        yield f'  File "{frame.file}", line {frame.line}, in {frame.function}'
        if frame.code:
            yield f"    {frame.code}"
