"""Check the server's answers against its data before the call, by an independent reading of the protocol.

An audit is a function and its arguments (not a closure), so that a message on its way can be copied with its audit.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.errors import Fenced
from celery_daemons.store import book, lease
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.world import SLOWEST, Audit, Contents, World, must

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent


def fenced(before: Contents, agent: "ModelAgent") -> bool:
    """Return whether another incarnation is registered, or none."""
    return bool(before.nodes.get(agent.node, {}).get("incarnation") != agent.incarnation)


def of_beat(agent: "ModelAgent") -> Audit:
    """Require that a fenced node renews nothing."""
    return partial(_beat, agent)


def _beat(agent: "ModelAgent", before: Contents, answer: Any, after: Contents) -> None:
    assert isinstance(answer, lease.Beat)
    if fenced(before, agent):
        unchanged = answer.verdict != "ok" and before == after
        must(unchanged, f"{agent.incarnation} is fenced, and its beat changed something")


def of_join(world: World, agent: "ModelAgent", previous: "ModelAgent | None") -> Audit:
    """Require that no agent takes over a lease that runs, except if its worker saw the holder of the lease dead."""
    return partial(_join, world, agent, previous)


def _join(
    world: World, agent: "ModelAgent", previous: "ModelAgent | None", before: Contents, answer: Any, after: Contents
) -> None:
    holder = before.nodes.get(agent.node, {}).get("incarnation")
    lease_runs = before.leases.get(agent.node, 0) * 1000 > world.server_now
    if holder is not None and lease_runs and holder not in (agent.incarnation, previous and previous.incarnation):
        must(isinstance(answer, lease.Taken) and before == after, f"{agent.incarnation} joined over {holder}")


def of_claim(world: World, agent: "ModelAgent", items: Sequence[tuple[DaemonName, Token]]) -> Audit:
    """Require that only the registered incarnation is granted a claim, with a lease and for the token of the book."""
    return partial(_claim, world, agent, items)


def _claim(
    world: World,
    agent: "ModelAgent",
    items: Sequence[tuple[DaemonName, Token]],
    before: Contents,
    answer: Any,
    after: Contents,
) -> None:
    if answer is None or isinstance(answer, Fenced):
        return
    must(not fenced(before, agent), f"{agent.incarnation} is fenced and was granted a claim")
    must(before.leases[agent.node] * 1000 > world.server_now, f"{agent.incarnation} claims without a lease")
    for (name, token), claim in zip(items, answer, strict=True):
        record = before.book.get(name, {})
        if not claim.refused:
            must(record.get("node") == agent.node, f"{name} was granted to {agent.node}, but is not there")
            must(int(record["token"]) == token, f"{name} was granted for {token}, but the book had {record['token']}")
            must(claim.token >= token, f"{name} was granted {claim.token} for {token}")


def of_report(agent: "ModelAgent", items: Sequence[runs.Report]) -> Audit:
    """Require that a fenced node reports nothing, and that no node reports a daemon that another token holds."""
    return partial(_report, agent, items)


def _report(agent: "ModelAgent", items: Sequence[runs.Report], before: Contents, answer: Any, after: Contents) -> None:
    if isinstance(answer, Fenced):
        return
    must(not fenced(before, agent), f"{agent.incarnation} is fenced and reported")
    for item, taken in zip(items, answer, strict=True):
        holds = before.book.get(item.name, {}).get("token") == str(item.token)
        must(holds or not taken, f"{item.name} was reported under {item.token}, which is not in the book")


def of_release(agent: "ModelAgent", items: Sequence[runs.Release]) -> Audit:
    """Require that no node releases a daemon that another token holds."""
    return partial(_release, agent, items)


def _release(
    agent: "ModelAgent", items: Sequence[runs.Release], before: Contents, answer: Any, after: Contents
) -> None:
    for item, taken in zip(items, answer, strict=True):
        record = before.book.get(item.name, {})
        holds = record.get("token") == str(item.token) and record.get("node") == agent.node
        must(bool(taken) == holds, f"{item.name} was released under {item.token}, but the book had {record}")


def of_leader(epoch: int, verb: str) -> Audit:
    """Require that a monitor that does not lead changes nothing."""
    return partial(_leader, epoch, verb)


def _leader(epoch: int, verb: str, before: Contents, answer: Any, after: Contents) -> None:
    if before.leader == str(epoch):
        must(not isinstance(answer, Fenced), f"{verb} was refused to epoch {epoch}, which leads")
    else:
        refused = isinstance(answer, Fenced) or answer is False
        must(refused and before == after, f"{verb} under epoch {epoch}, while {before.leader} leads")


def of_assign(world: World, call: ScriptCall[Any]) -> Audit:
    """Require that a placed daemon is assigned to no other node, and that each assignment has a new token."""
    names = [DaemonName(name) for name, _ in msgspec.json.decode(call.args[3])]  # type: ignore[arg-type]
    return partial(_assign, world, names)


def _assign(world: World, names: Sequence[DaemonName], before: Contents, answer: Any, after: Contents) -> None:
    if not isinstance(answer, book.Dispatch):
        return
    for name, token in zip(names, answer.tokens, strict=True):
        if token:
            record = before.book.get(name, {})
            must(record.get("node") is None, f"{name} was assigned while on {record.get('node')}")
            world.issue(name, token)


def of_sweep(world: World, node: str) -> Audit:
    """Require that a node is not swept while its lease runs by its own clock, however the server's clock was set."""
    return partial(_sweep, world, node)


def _sweep(world: World, node: str, before: Contents, answer: Any, after: Contents) -> None:
    registered = before.nodes.get(node, {}).get("incarnation")
    runs = any(
        agent.incarnation == registered and agent.lease_until > world.now and agent.rate >= SLOWEST
        for agent in world.agents
    )
    if isinstance(answer, book.Swept) and registered and runs:
        must(before == after, f"{node} was swept while its lease ran")


def both(*audits: Audit) -> Audit:
    """Return an audit that applies several."""
    return partial(_all, audits)


def _all(audits: Sequence[Audit], before: Contents, answer: Any, after: Contents) -> None:
    for audit in audits:
        audit(before, answer, after)


def counter_is_behind(world: World) -> bool:
    """Return whether the server has lost a token: its counter is lower than a token that a daemon was given."""
    counter = world.double.read(world.server_now).get(world.keys.clock.encode())
    issued, _, _ = world.tokens_seen
    return int(counter.value if counter else 0) < max(issued.values(), default=0)
