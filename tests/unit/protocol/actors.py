"""What nodes and monitors do in the model: the discipline that the protocol asks of them, and no more."""

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import BookRow, NodeRow
from celery_daemons.domain.states import DaemonStatus, NodeStatus, Outcome
from celery_daemons.errors import Fenced
from celery_daemons.store import assignments, book, lease
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol import audits
from tests.unit.protocol.world import SLOWEST, TTL_MS, Audit, Fate, Process, T, World, must

LAUNCHER = LauncherName("tail")
ARGUMENTS = "[[], {}]"


def row_of(process: Process) -> NodeRow:
    """The record under which a process registers."""
    return NodeRow(
        incarnation=Incarnation(process.incarnation),
        status=NodeStatus.UP,
        queue=process.node,
        spawn_queue=f"{process.node}.spawn",
        host="model",
        pid=1,
        weight=1.0,
        labels="",
        launchers=LAUNCHER,
    )


class Nodes:
    """What agents do. Each call is one step, after which anything else may happen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._keys = world.keys
        self._count = 0

    def able(self, process: Process) -> bool:
        """Whether it can run and, as far as it knows, may."""
        return process.alive and not process.paused and process.lease_until > self.world.now

    def start(self, node: NodeName, previous: Process | None, fate: Fate, rate: float = SLOWEST) -> Process:
        """A new agent joins; ``previous`` is a dead one that the same worker started before it."""
        self._count += 1
        process = Process(node, f"{node}{self._count}", self.world.run_id, rate)
        self.world.processes.append(process)
        sent = self.world.now
        seen_dead = Incarnation(previous.incarnation) if previous else None
        call = lease.join(self._keys, node, row_of(process), ttl_ms=TTL_MS, previous=seen_dead)

        def heard(answer: lease.Joined | lease.Taken | Fenced) -> None:
            if isinstance(answer, lease.Joined):
                process.lease_until = process.lease_from(sent)
            else:
                process.alive = False

        if fate in ("lost", "late"):
            # It gives up, and the next one begins anew.
            process.alive = False
        self.world.send(process, call, fate, heard, audits.of_join(self.world, process, previous))
        return process

    def kill(self, process: Process) -> None:
        """The process ends, and its hosts with it."""
        process.alive = False
        process.lease_until = 0
        process.running.clear()

    def beat(self, process: Process, fate: Fate) -> None:
        """Renew the lease; a node that Redis has forgotten tells it again what it runs."""
        if not process.alive or process.paused:
            return
        if not self.able(process):
            # Its lease has ended and its hosts are dead: it begins anew as another incarnation.
            self.kill(process)
            return
        if process.run_id != self.world.run_id:
            self._reassert(process, fate)
            return
        sent = self.world.now
        call = lease.beat(self._keys, process.node, Incarnation(process.incarnation), ttl_ms=TTL_MS)

        def heard(answer: lease.Beat | Fenced) -> None:
            assert isinstance(answer, lease.Beat)
            if answer.verdict == "ok":
                process.lease_until = max(process.lease_until, process.lease_from(sent))
            elif self.able(process):
                # Nobody may sweep a lease that still runs: whatever the verdict, Redis has forgotten it.
                self._reassert(process, "prompt")
            else:
                self.kill(process)

        self.world.send(process, call, fate, heard, audits.of_beat(process), in_turn=False)

    def _reassert(self, process: Process, fate: Fate) -> None:
        # An answer of the server that was there before is worth nothing now.
        process.era += 1
        process.waiting = False
        sent, run_id = self.world.now, self.world.run_id
        items = [
            runs.Running(
                name=name,
                token=token,
                launcher=LAUNCHER,
                arguments=ARGUMENTS,
                version="1",
                status=DaemonStatus.RUNNING,
                pid=1,
                restarts=0,
            )
            for name, token in process.running.items()
        ]

        def heard(answer: tuple[int, list[bool]] | Fenced | None) -> None:
            if answer is None or isinstance(answer, Fenced):
                self.kill(process)
                return
            process.lease_until = max(process.lease_until, process.lease_from(sent))
            process.run_id = run_id
            specs = self.world.look().specs
            for item, kept in zip(items, answer[1], strict=True):
                if not kept:
                    process.running.pop(item.name, None)
                elif item.name not in self.world.forgotten:
                    must(item.name in specs, f"{item.name} runs, and nothing says any more that it should")

        call = book.reassert(self._keys, process.node, row_of(process), items, ttl_ms=TTL_MS)
        self.world.send(process, call, fate, heard, in_turn=False)

    def _may_write(self, process: Process) -> bool:
        return self.able(process) and process.run_id == self.world.run_id and not process.waiting

    def look(self, process: Process, fate: Fate = "prompt") -> None:
        """Ask what the book says is on the node, and do it: stop, release, claim."""
        if not self._may_write(process):
            return
        held = self.world.ask(assignments.page(self._keys, process.node)).rows
        for name in [name for name in process.running if name not in held]:
            del process.running[name]
        claims: list[tuple[DaemonName, str]] = []
        releases: list[tuple[DaemonName, str]] = []
        for name, row in held.items():
            assert isinstance(row, BookRow)
            if row.status is DaemonStatus.STOPPING:
                process.running.pop(name, None)
                releases.append((name, row.token))
            elif process.running.get(name) != row.token:
                process.running.pop(name, None)
                claims.append((name, row.token))
        if releases:
            self._release(process, releases, Outcome.STOPPED, fate)
        elif claims:
            self._claim(process, claims, fate)

    def restart(self, process: Process, name: DaemonName, fate: Fate) -> None:
        """A daemon ended by itself and is started again."""
        if self._may_write(process) and name in process.running:
            self._claim(process, [(name, process.running.pop(name))], fate)

    def finish(self, process: Process, name: DaemonName, outcome: Outcome, fate: Fate) -> None:
        """A daemon ended by itself and is given back."""
        if self._may_write(process) and name in process.running:
            self._release(process, [(name, process.running.pop(name))], outcome, fate)

    def report(self, process: Process, fate: Fate) -> None:
        """Say what runs."""
        if self._may_write(process) and process.running:
            items = [
                runs.Report(name=name, token=token, status=DaemonStatus.RUNNING, pid=1, restarts=0)
                for name, token in process.running.items()
            ]
            call = book.report(self._keys, process.node, Incarnation(process.incarnation), items)
            self.world.send(process, call, fate, lambda _: None, audits.of_report(process, items))

    def leave(self, process: Process) -> None:
        """Leave, if nothing is held any more."""
        if self._may_write(process) and not process.running:
            left = self.world.ask(lease.leave(self._keys, process.node, Incarnation(process.incarnation)))
            if left == 0:
                self.kill(process)

    def _claim(self, process: Process, items: list[tuple[DaemonName, str]], fate: Fate) -> None:
        def heard(answer: list[runs.ClaimResult] | Fenced) -> None:
            if isinstance(answer, Fenced) or not self._may_write(process):
                return
            for (name, _), claim in zip(items, answer, strict=True):
                if not claim.refused:
                    self.world.start(process, name, claim.token)

        call = book.claim(self._keys, process.node, Incarnation(process.incarnation), items)
        self.world.send(process, call, fate, heard, audits.of_claim(self.world, process, items))

    def _release(self, process: Process, items: list[tuple[DaemonName, str]], outcome: Outcome, fate: Fate) -> None:
        releases = [runs.Release(name=name, token=token, outcome=outcome, restarts=0) for name, token in items]
        call = book.release(self._keys, process.node, releases)
        self.world.send(process, call, fate, lambda _: None, audits.of_release(process, releases))


class Monitor:
    """A candidate. It may be paused between any two calls, and goes on with the epoch that it once had."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = NodeName(name)
        self.epoch: Epoch | None = None
        self.paused = False

    def campaign(self) -> None:
        """Renew the epoch, or run for a new one."""
        call = lease.campaign(self.world.keys, self.name, Incarnation("m"), ttl_ms=TTL_MS, epoch=self.epoch)
        before, self.epoch = self.epoch, self.world.ask(call)
        if self.epoch is not None:
            must(self.epoch >= (before or 0), f"epoch {self.epoch} after {before}")

    def resign(self) -> None:
        """Give the epoch back."""
        if self.epoch is not None:
            self.world.ask(lease.resign(self.world.keys, self.epoch, cause="model"))

    def assign(self, name: DaemonName, node: NodeName) -> None:
        """Assign a daemon, as one who believes to lead."""
        record = self.world.look().nodes.get(node)
        if self.epoch is None or record is None or not self.world.settled():
            return
        call = book.assign(self.world.keys, self.epoch, node, Incarnation(record["incarnation"]), [(name, "model")])
        dispatch = self._as_leader(call, audits.of_assign(name))
        if dispatch is not None and dispatch.tokens[0]:
            self.world.issue(name, dispatch.tokens[0])

    def recall(self, name: DaemonName) -> None:
        """Ask for a daemon back."""
        node = self.world.look().book.get(name, {}).get("node")
        if self.epoch is not None and node and self.world.settled():
            self._as_leader(book.recall(self.world.keys, self.epoch, NodeName(node), [(name, "model")]))

    def sweep(self, node: NodeName) -> None:
        """Free what a node left behind."""
        if self.epoch is not None and self.world.settled():
            call = book.sweep(self.world.keys, self.epoch, node, limit=1)
            self._as_leader(call, audits.of_sweep(self.world, node))

    def _as_leader(self, call: ScriptCall[T], *more: Audit) -> T | None:
        assert self.epoch is not None
        try:
            return self.world.ask(call, audits.both(audits.of_leader(self.epoch, call.verb), *more))
        except Fenced:
            self.epoch = None
            return None
