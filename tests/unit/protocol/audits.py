"""What the server may answer, judged by what it held before the call: the model's own reading of the protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.errors import Fenced
from celery_daemons.store import book, lease
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.world import Audit, Contents, World, must

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent


def fenced(before: Contents, agent: "ModelAgent") -> bool:
    """Whether another incarnation is registered, or none."""
    return bool(before.nodes.get(agent.node, {}).get("incarnation") != agent.incarnation)


def of_beat(agent: "ModelAgent") -> Audit:
    """A fenced node renews nothing."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        assert isinstance(answer, lease.Beat)
        if fenced(before, agent):
            must(
                answer.verdict != "ok" and before == after,
                f"{agent.incarnation} is fenced, its beat changed something",
            )

    return audit


def of_join(world: World, agent: "ModelAgent", previous: "ModelAgent | None") -> Audit:
    """A lease that runs is taken over by nobody but who saw its holder dead."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        holder = before.nodes.get(agent.node, {}).get("incarnation")
        runs = before.leases.get(agent.node, 0) * 1000 > world.now
        if holder is not None and runs and holder not in (agent.incarnation, previous and previous.incarnation):
            must(isinstance(answer, lease.Taken) and before == after, f"{agent.incarnation} joined over {holder}")

    return audit


def of_claim(world: World, agent: "ModelAgent", items: Sequence[tuple[DaemonName, Token]]) -> Audit:
    """Only the registered incarnation is granted anything, under a lease that runs, for the token of the book."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        if answer is None or isinstance(answer, Fenced):
            return
        must(not fenced(before, agent), f"{agent.incarnation} is fenced and was granted a claim")
        must(before.leases[agent.node] * 1000 > world.now, f"{agent.incarnation} claims without a lease")
        for (name, token), claim in zip(items, answer, strict=True):
            record = before.book.get(name, {})
            if not claim.refused:
                must(record.get("node") == agent.node, f"{name} was granted to {agent.node}, it is not there")
                must(int(record["token"]) == token, f"{name} was granted for {token}, the book said {record['token']}")
                must(claim.token >= token, f"{name} was granted {claim.token} for {token}")

    return audit


def of_report(agent: "ModelAgent", items: Sequence[runs.Report]) -> Audit:
    """A fenced node reports nothing, and nobody reports what another token holds."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        if isinstance(answer, Fenced):
            return
        must(not fenced(before, agent), f"{agent.incarnation} is fenced and reported")
        for item, taken in zip(items, answer, strict=True):
            holds = before.book.get(item.name, {}).get("token") == str(item.token)
            must(holds or not taken, f"{item.name} was reported under {item.token}, which is not the book's")

    return audit


def of_release(agent: "ModelAgent", items: Sequence[runs.Release]) -> Audit:
    """Nobody gives back what another token holds."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        for item, taken in zip(items, answer, strict=True):
            record = before.book.get(item.name, {})
            holds = record.get("token") == str(item.token) and record.get("node") == agent.node
            must(bool(taken) == holds, f"{item.name} was released under {item.token}, the book said {record}")

    return audit


def of_leader(epoch: int, verb: str) -> Audit:
    """Who does not lead changes nothing."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        leads = before.leader == str(epoch)
        must(
            leads == (not isinstance(answer, Fenced)),
            f"{verb} under epoch {epoch}, the one that leads is {before.leader}",
        )

    return audit


def of_assign(world: World, call: ScriptCall[Any]) -> Audit:
    """A daemon that is on a node is assigned to no other, and gets a token that no assignment had before."""
    names = [DaemonName(name) for name, _ in msgspec.json.decode(call.args[3])]  # type: ignore[arg-type]

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        if not isinstance(answer, book.Dispatch):
            return
        for name, token in zip(names, answer.tokens, strict=True):
            if token:
                record = before.book.get(name, {})
                must(record.get("node") is None, f"{name} was assigned while on {record.get('node')}")
                world.issue(name, token)

    return audit


def of_sweep(world: World, node: str) -> Audit:
    """A node whose lease runs is not swept."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        if isinstance(answer, book.Swept) and before.leases.get(node, 0) * 1000 > world.now:
            must(before == after, f"{node} was swept while its lease ran")

    return audit


def both(*audits: Audit) -> Audit:
    """Several at once."""

    def audit(before: Contents, answer: Any, after: Contents) -> None:
        for one in audits:
            one(before, answer, after)

    return audit
