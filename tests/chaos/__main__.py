"""``make chaos MINUTES=n SEED=s``: random faults, then a table of what they did; status 1 if one did harm."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.chaos_cluster import LEASE, ChaosCluster
from tests.chaos.faults import WEIGHTS, Fault

#: Seconds in which the cluster has to be whole again once everything is mended.
_WHOLE_WITHIN = 45.0
#: Faults between two such looks.
_ROUND = 25
#: A life counts as the answer to a fault if it began so many seconds after it at most.
_ANSWER = 15.0


class Report:
    """The faults of a run, and the recovery from each."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.lost: list[str] = []
        self.took: dict[str, list[float]] = defaultdict(list)

    def settle(self, cluster: ChaosCluster) -> None:
        """Measure, for each fault since the last time, when the last daemon that it hit ran again."""
        begun: dict[str, list[float]] = defaultdict(list)
        for name, _, at in cluster.recorder.begun:
            begun[name].append(at)
        for fault in self.faults:
            if not fault.hit:
                continue
            answers = [min((at - fault.at for at in begun[name] if at > fault.at), default=None) for name in fault.hit]
            known = [answer for answer in answers if answer is not None and answer < _ANSWER]
            if known:
                self.took[fault.kind].append(max(known))
            fault.hit = []


def rage(cluster: ChaosCluster, report: Report, minutes: float, console: Console) -> None:
    """Cause faults until the time is up."""
    rng = cluster.rng
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    end = time.monotonic() + minutes * 60
    pending: list[Fault] = []
    while time.monotonic() < end:
        for _ in range(_ROUND):
            _mend(pending)
            idle = cluster.idle()
            # One node is left alone, so that there is somewhere to go.
            if len(idle) > 1:
                fault = rng.choices(kinds, weights)[0](cluster, rng.choice(idle))
                if fault is not None:
                    report.faults.append(fault)
                    if fault.mend is not None:
                        pending.append(fault)
            cluster.watch(rng.uniform(0.1, 1.2))
        while pending:
            _mend(pending)
            cluster.watch(0.1)
        silent = cluster.whole(_WHOLE_WITHIN)
        report.lost += sorted(silent)
        report.settle(cluster)
        left = max(0.0, end - time.monotonic())
        console.log(
            f"{len(report.faults)} faults, {cluster.recorder.lives} lives, {cluster.recorder.signs} signs, "
            f"{len(cluster.recorder.violations)} violations, {len(report.lost)} lost, {left:.0f} s left"
        )
        if silent:
            return


def _mend(pending: list[Fault]) -> None:
    now = time.monotonic()
    for fault in [one for one in pending if one.mend_at <= now]:
        pending.remove(fault)
        assert fault.mend is not None
        fault.mend()


def table(report: Report, cluster: ChaosCluster, minutes: float, seed: int) -> Table:
    """Return the result as a table."""
    found = Table(
        "fault",
        "times",
        "median s",
        "p99 s",
        "longest s",
        title=f"{minutes:g} minutes, seed {seed}, {len(cluster.names)} daemons on 4 workers, lease {LEASE:g} s",
    )
    counts: dict[str, int] = defaultdict(int)
    for fault in report.faults:
        counts[fault.kind] += 1
    for kind in sorted(counts):
        took = sorted(report.took.get(kind, ()))
        figures = ["", "", ""]
        if took:
            figures = [f"{took[int(share * (len(took) - 1))]:.2f}" for share in (0.5, 0.99, 1.0)]
        found.add_row(kind, str(counts[kind]), *figures)
    found.add_section()
    found.add_row("all faults", str(len(report.faults)))
    found.add_row("lives begun", str(cluster.recorder.lives))
    found.add_row("signs of life judged", str(cluster.recorder.signs))
    found.add_row("overlaps or fallen tokens", str(len(cluster.recorder.violations)))
    found.add_row("daemons lost", str(len(report.lost)))
    return found


def main() -> int:
    """Run the faults and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--walks", type=int, default=188, help="coroutine daemons")
    parser.add_argument("--solos", type=int, default=12, help="isolated daemons")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the workers' logs")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    console = Console(width=120)
    console.print(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="daemons-chaos-"))
    report = Report()
    with ExitStack() as stack:
        cluster = ChaosCluster(folder, stack, random.Random(seed), walks=arguments.walks, solos=arguments.solos)
        silent = cluster.whole(60)
        if silent:
            console.print(f"never started: {sorted(silent)[:10]}; the workers' logs are in {folder}")
            return 1
        rage(cluster, report, arguments.minutes, console)
        console.print(table(report, cluster, arguments.minutes, seed))
        for violation in cluster.recorder.violations[:20]:
            console.print(f"{violation.kind}: {violation.name}: {violation.text}", style="bold red")
        for name in report.lost[:20]:
            console.print(f"lost: {name}: {cluster.client.record(name)}", style="bold red")
        failed = bool(cluster.recorder.violations or report.lost)
    if failed or arguments.keep:
        console.print(f"the workers' logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
