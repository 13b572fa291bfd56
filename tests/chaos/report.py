"""The result of a run, as a table for the console and for the documentation."""

from collections import defaultdict

from tests.chaos.chaos_cluster import CANDIDATES, NODES, ChaosCluster
from tests.chaos.fault import Fault
from tests.chaos.members import LEASES

#: A run counts as the recovery from a fault if it began within this many seconds after the fault.
_ANSWER = 15.0


class Report:
    """The faults of a run, and the recovery from each."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self._counts: dict[str, int] = defaultdict(int)
        self._took: dict[str, list[float]] = defaultdict(list)
        self._unsettled: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Count a fault."""
        self._counts[fault.kind] += 1
        if fault.hit:
            self._unsettled.append(fault)

    @property
    def faults(self) -> int:
        """Return the number of faults."""
        return sum(self._counts.values())

    def settle(self, cluster: ChaosCluster) -> None:
        """Measure, for each fault since the last time, when the last daemon that it hit ran again."""
        begun: dict[str, list[float]] = defaultdict(list)
        for name, _, at in cluster.recorder.begun:
            begun[name].append(at)
        for fault in self._unsettled:
            answers = [min((at - fault.at for at in begun[name] if at > fault.at), default=None) for name in fault.hit]
            known = [answer for answer in answers if answer is not None and answer < _ANSWER]
            if known:
                self._took[fault.kind].append(max(known))
        self._unsettled.clear()

    def harm(self, cluster: ChaosCluster) -> dict[str, int]:
        """Return the counts that must all be zero."""
        kinds = [violation.kind for violation in cluster.recorder.violations]
        return {
            "overlaps": kinds.count("overlap"),
            "decreasing tokens": kinds.count("token decreased"),
            "daemons lost": len(self.lost),
        }

    def text(self, cluster: ChaosCluster, minutes: float, seed: int) -> str:
        """Return the result as the documentation shows it."""
        shared = sum(name.startswith("walk.") for name in cluster.names)
        leases = ", ".join(f"{lease:g}" for lease in LEASES[:-1]) + f" or {LEASES[-1]:g} s"
        members = f"{NODES} workers with leases of {leases}, {CANDIDATES} monitors without workers"
        daemons = f"{shared} coroutine daemons and {len(cluster.names) - shared} isolated ones"
        harm = ", ".join(f"{number:,} {what}" for what, number in self.harm(cluster).items())
        recorder = cluster.recorder
        lines = [
            f"`make chaos MINUTES={minutes:g} SEED={seed}`: {members}, {daemons}.",
            "",
            f"**{self.faults:,} faults, {recorder.runs:,} runs, {recorder.records:,} records checked: {harm}.**",
            "",
            "| fault | times | median s | p99 s | longest s |",
            "|---|---|---|---|---|",
        ]
        for kind in sorted(self._counts):
            took = sorted(self._took.get(kind, ()))
            figures = [f"{took[int(share * (len(took) - 1))]:.2f}" for share in (0.5, 0.99, 1.0)] if took else [""] * 3
            lines.append(f"| {kind} | {self._counts[kind]} | {' | '.join(figures)} |")
        return "\n".join(lines)
