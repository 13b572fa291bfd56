"""``make chaos MINUTES=n SEED=s``: random faults, then a table of what they did; status 1 if one did harm."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.fault import Fault
from tests.chaos.plan import NAMES, Plan
from tests.chaos.report import Report

#: Seconds in which every daemon has to run at the beginning, and again once everything is repaired.
_WHOLE_WITHIN = 60.0
#: Faults between two such checks.
_ROUND = 25


def cause_faults(cluster: ChaosCluster, plan: Plan, report: Report, minutes: float, console: Console) -> None:
    """Cause faults until the time is up."""
    end = time.monotonic() + minutes * 60
    pending: list[Fault] = []
    while time.monotonic() < end:
        for _ in range(_ROUND):
            _mend(pending)
            step, idle = plan.next(), cluster.idle()
            # One node gets no fault, so that daemons can start there.
            if len(idle) > 1:
                fault = step.cause(cluster, step.rng.choice(idle), step.rng)
                if fault is not None:
                    report.add(fault)
                    if fault.mend is not None:
                        pending.append(fault)
            cluster.watch(step.pause)
        while pending:
            _mend(pending)
            cluster.watch(0.1)
        for _ in range(cluster.start_ended(step.rng)):
            report.add(Fault("worker ended by a shortage", time.monotonic()))
        silent = cluster.whole(_WHOLE_WITHIN)
        report.lost += sorted(silent)
        report.settle(cluster)
        left = max(0.0, end - time.monotonic())
        console.log(
            f"{report.faults} faults, {cluster.recorder.runs} runs, {cluster.recorder.records} records, "
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


def main() -> int:
    """Run the faults and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--walks", type=int, default=188, help="coroutine daemons")
    parser.add_argument("--solos", type=int, default=12, help="isolated daemons")
    parser.add_argument("--only", choices=sorted(NAMES), nargs="+", default=[], help="faults to cause, and no others")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the workers' logs")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    # SIGTERM ends the run as Ctrl-C does. Otherwise its processes, control groups and file systems would be left.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(width=120)
    console.print(f"seed {seed}")
    # A short path, because sockets are created in it.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = Report()
    with ExitStack() as stack:
        cluster = ChaosCluster(folder, stack, walks=arguments.walks, solos=arguments.solos)
        for what in cluster.not_possible:
            console.print(f"not possible here, and left out: {what}", style="yellow")
        silent = cluster.whole(_WHOLE_WITHIN)
        if silent:
            console.print(f"never started: {sorted(silent)[:10]}; the workers' logs are in {folder}")
            return 1
        cluster.save()
        cause_faults(cluster, Plan(seed, only=arguments.only), report, arguments.minutes, console)
        sys.stdout.write(f"\n{report.text(cluster, arguments.minutes, seed)}\n\n")
        for violation in cluster.recorder.violations[:20]:
            console.print(f"{violation.kind}: {violation.name}: {violation.text}", style="bold red")
        for name in report.lost[:20]:
            console.print(f"lost: {name}: {cluster.client.record(name)}", style="bold red")
        failed = any(report.harm(cluster).values())
    if failed or arguments.keep:
        console.print(f"the workers' logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
