"""Keeps alive the daemons that are assigned to this node: claims, starts, restarts, stops and releases them."""

import logging
import random
import time
from collections.abc import Iterable, Mapping
from typing import Final

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.restart import RestartHistory, Verdict, restarts_after
from celery_daemons.domain.runs import Assignment, ClaimResult, End, Release, Report, StartItem
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.host_pool import Host, HostPool
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.local_daemon import Afterwards, Life, State
from celery_daemons.node.supervision.stopping import Stopper
from celery_daemons.node.timers import Timers
from celery_daemons.wire.messages import Ended

logger = logging.getLogger(__name__)

#: Below this, a wait before a restart is not worth a report.
_AT_ONCE: Final = 0.05


class Supervisor:
    """The lives on this node by name; everything here runs in the agent's loop and never waits."""

    def __init__(self, launchers: Mapping[str, LauncherOptions]) -> None:
        self.lives: dict[DaemonName, Life] = {}
        self.draining = False
        self._launchers = launchers
        self._timers = Timers()
        self.stopper = Stopper(self, launchers, self._timers)
        self._dice = random.Random()  # noqa: S311 - jitter, not a secret

    def connect(self, pool: HostPool, ledger: Outbox) -> None:
        """Take the hands it works with."""
        self._pool = pool
        self._ledger = ledger
        self.stopper.connect(pool, ledger)

    # What the monitor wants

    def assigned(self, items: Iterable[tuple[DaemonName, Token]]) -> None:
        """Start ``(name, token)`` each, unless it is known already."""
        for raw_name, token in items:
            name = DaemonName(raw_name)
            life = self.lives.get(name)
            if life is None:
                self.lives[name] = Life(name, token)
                self._ledger.claim(name, token)
            elif token > life.token:
                self._assigned_anew(life, token)

    def _assigned_anew(self, life: Life, token: Token) -> None:
        """The book has a newer token for a life: what runs here is void, and starts anew under that."""
        if life.state is State.CLAIMING:
            life.token = token
            self._ledger.claim(life.name, token)
        elif life.state is State.WAITING:
            life.token = token
        else:
            life.newer = token
            self.stopper.stop(life, Afterwards.RESTART)

    def recalled(self, items: Iterable[tuple[DaemonName, Token]]) -> None:
        """Stop and release ``(name, token)`` each."""
        for raw_name, token in items:
            name = DaemonName(raw_name)
            life = self.lives.get(name)
            if life is None:
                self._ledger.release(Release(name=name, token=token, outcome=Outcome.STOPPED, restarts=0))
            elif token >= life.token:
                # A lower one was recalled, released and assigned here anew since: that message came late. A higher one
                # was granted in an answer that was lost: it is the one to give back.
                life.newer = token
                self.stopper.stop(life, Afterwards.RELEASE)

    def synchronise(self, known_before: Mapping[DaemonName, Life], held: Mapping[DaemonName, BookRow | None]) -> None:
        """Do what the book says is on this node; ``known_before`` is what was known before it was asked."""
        for name, row in held.items():
            if row is None:
                logger.error("daemon %s: its record in the book is corrupt, left alone", name)
                continue
            life = self.lives.get(name)
            if row.status is DaemonStatus.STOPPING:
                self.recalled([(name, row.token)])
            else:
                self.assigned([(name, row.token)])
        for name, life in known_before.items():
            if name not in held and self.lives.get(name) is life:
                logger.warning("daemon %s: no longer assigned to this node, stopping", name)
                self.stopper.stop(life, Afterwards.DROP)

    def stop_all(self) -> None:
        """Stop and release everything, and start nothing any more."""
        self.draining = True
        for life in list(self.lives.values()):
            self.stopper.stop(life, Afterwards.RELEASE)

    def forget_all(self) -> None:
        """Know nothing any more; every host is dead."""
        self.lives.clear()
        self._ledger.clear()

    # What Redis confirmed

    def claimed(self, items: list[Assignment], claims: list[ClaimResult]) -> None:
        """Start what was granted."""
        shared: dict[Host, list[StartItem]] = {}
        for (name, token), claim in zip(items, claims, strict=True):
            life = self.lives.get(name)
            if life is None or life.state is not State.CLAIMING or life.token != token:
                continue
            if claim.refused == "not wanted":
                self.release(life, Outcome.STOPPED)
            elif claim.refused:
                logger.info("daemon %s: not started: %s", name, claim.refused)
                self.remove(life)
                if claim.refused == "superseded":
                    # Perhaps by a claim of its own whose answer was lost: then the book counts on this node.
                    self._ledger.differs()
            else:
                life.token, life.newer = claim.token, None
                life.launcher, life.arguments, life.version = claim.launcher, claim.arguments, claim.version
                life.restarts = max(life.restarts, claim.restarts)
                life.history = life.history or RestartHistory(exhausted=bool(claim.avoid))
                self._start(life, shared)
        for host, batch in shared.items():
            host.start_daemons(batch)

    def _start(self, life: Life, shared: dict[Host, list[StartItem]]) -> None:
        options = self._launchers.get(life.launcher)
        if life.unwanted or self.draining:
            self.release(life, Outcome.STOPPED)
        elif options is None:
            why = f"launcher {life.launcher} is not registered on this node"
            logger.error("daemon %s: %s", life.name, why)
            self.release(life, Outcome.REFUSED, error=why)
        else:
            life.state, life.end, life.since = State.STARTING, None, time.monotonic()
            item = StartItem(life.name, life.token, LauncherName(life.launcher), life.arguments)
            life.host = self._pool.isolated() if options.isolation == "process" else self._pool.least_loaded()
            life.host.names.add(life.name)
            if life.host.isolated:
                life.host.start_daemons([item])
            else:
                shared.setdefault(life.host, []).append(item)

    # What the hosts say

    def host_started(self, host: Host, items: list[tuple[DaemonName, Token]]) -> None:
        """Daemons run."""
        for name, token in items:
            life = self._life_on(host, name, token)
            if life is not None and life.state is State.STARTING:
                life.state, life.since = State.RUNNING, time.monotonic()
                # A restart at once was not worth a report of its own; its cause is.
                self._report(life, DaemonStatus.RUNNING, error=life.error, trace=life.trace)

    def host_ended(self, host: Host, message: Ended) -> None:
        """Daemons ended. One that has a process to itself has ended when that is dead, and not before."""
        for end in message.items:
            life = self._life_on(host, end.name, end.token)
            if life is None:
                continue
            life.end = life.end or end
            if not host.isolated:
                host.names.discard(end.name)
                self.life_ended(life, life.end, at_once=False)
                self.stopper.settle(host)

    def host_hung(self, host: Host, items: list[tuple[DaemonName, Token]]) -> None:
        """Daemons make no progress: they are stopped, by force if need be, which is a failure to their policy."""
        for name, token in items:
            life = self._life_on(host, name, token)
            if life is None or life.state is not State.RUNNING:
                continue
            options = self._launchers[life.launcher]
            logger.warning("daemon %s: no progress for %s s, ending it", name, options.progress_deadline)
            life.end = End(name, token, Outcome.FAILED, f"hung: no progress for {options.progress_deadline} s")
            if host.isolated:
                host.kill()
            else:
                self.stopper.stop(life, Afterwards.POLICY, hung=True)

    def host_died(self, host: Host) -> None:
        """Everything that ran in the host has ended."""
        self._pool.forget(host)
        for name in list(host.names):
            life = self.lives.get(DaemonName(name))
            if life is None or life.host is not host:
                continue
            # Who has a process to itself has brought it down, as far as anybody knows; neighbours have not.
            counts = host.isolated or life.end is not None
            end = life.end or End(life.name, life.token, Outcome.FAILED, f"its host process {host.pid} died")
            self.life_ended(life, end, at_once=life.end is None, counts=counts)

    def _life_on(self, host: Host, name: str, token: int) -> Life | None:
        life = self.lives.get(DaemonName(name))
        return life if life is not None and life.host is host and life.token == token else None

    # How lives end

    def life_ended(self, life: Life, end: End, *, at_once: bool, counts: bool = True) -> None:
        """Decide what follows: nothing, its release, or another start, at once or after a while."""
        life.host = None
        # What ran has ended: from here on the token counts that the book has.
        life.token, life.newer = life.newer or life.token, None
        outcome = Outcome(end.outcome)
        stopping = life.state is State.STOPPING
        # One that ended by itself as it was asked to stop has ended under its policy; one that was killed has not.
        ended = life.end is not None or not (stopping or self.draining)
        if stopping and life.afterwards is Afterwards.DROP:
            self.remove(life)
        elif ended and not restarts_after(self._launchers[life.launcher], outcome):
            logger.info("daemon %s: %s, and its restart policy wants no other start", life.name, end.outcome)
            life.trace = end.trace
            self.release(life, Outcome.FINISHED, error=end.error)
        elif (stopping and life.afterwards is Afterwards.RELEASE) or self.draining:
            self.release(life, Outcome.STOPPED)
        elif stopping and life.afterwards is Afterwards.RESTART:
            life.restarts += 1
            life.state = State.WAITING
            self._claim_again(life)
        else:
            self._restart_later(life, end, at_once=at_once, counts=counts)

    def _restart_later(self, life: Life, end: End, *, at_once: bool, counts: bool) -> None:
        options = self._launchers[life.launcher]
        now = time.monotonic()
        life.history = life.history or RestartHistory()
        delay, verdict = life.history.next_delay(
            options, now=now, ran_for=now - life.since, rng=self._dice, at_once=at_once, counts=counts
        )
        life.restarts += 1
        life.error, life.trace = end.error, end.trace
        why = end.error or f"{end.outcome} by itself"
        if verdict is Verdict.ELSEWHERE:
            logger.warning("daemon %s: %s, too often here: another node shall try", life.name, why)
            self.release(life, Outcome.EXHAUSTED, error=why)
            return
        life.state = State.WAITING
        failed = verdict is Verdict.FAILED
        logger.log(
            logging.ERROR if failed else logging.WARNING, "daemon %s: %s, next start in %.1f s", life.name, why, delay
        )
        if delay < _AT_ONCE:
            self._claim_again(life)
        else:
            self._report(life, DaemonStatus.FAILED if failed else DaemonStatus.BACKOFF, error=why, trace=end.trace)
            self._timers.after(delay, lambda: self._claim_again(life))

    def _claim_again(self, life: Life) -> None:
        if self.lives.get(life.name) is life and life.state is State.WAITING:
            life.state = State.CLAIMING
            self._ledger.claim(life.name, life.token)

    # Book-keeping

    def _report(self, life: Life, status: DaemonStatus, *, error: str | None = None, trace: str | None = None) -> None:
        self._ledger.report(
            Report(
                name=life.name,
                token=life.token,
                status=status,
                pid=life.host.pid if life.host else 0,
                restarts=life.restarts,
                error=error,
                trace=trace,
            )
        )

    def release(self, life: Life, outcome: Outcome, *, error: str | None = None) -> None:
        """Give a daemon back."""
        self.remove(life)
        self._ledger.release(
            Release(
                name=life.name,
                token=life.newer or life.token,
                outcome=outcome,
                restarts=life.restarts,
                error=error,
                trace=life.trace if error else None,
            )
        )

    def remove(self, life: Life) -> None:
        """Know a daemon no more."""
        if self.lives.get(life.name) is life:
            del self.lives[life.name]
            self._ledger.drop(life.name)
