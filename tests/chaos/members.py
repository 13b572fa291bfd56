"""The members of the cluster: workers, and monitors without workers, each behind a network of its own."""

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.chaos.shortages import Disk, ProcessLimit
from tests.support.projects import Project
from tests.support.proxy import Proxy
from tests.support.workers import CeleryProcess, Worker

#: The leases of nodes, in seconds. A node that is restarted draws another one of them.
LEASES = (2.0, 3.0, 5.0)
#: What ``celery … daemons monitor`` logs when it has started.
_CANDIDATE_READY = "candidate started"


class Member:
    """A process of Celery with its agent, and the proxy between them and Redis."""

    def __init__(self, project: Project, name: str, stack: ExitStack, port: int) -> None:
        self.name = f"{name}@test"
        self.short = name
        self.project = project
        self.proxy = stack.enter_context(Proxy(port))
        self.busy_until = 0.0
        self.process: CeleryProcess
        stack.callback(self.close)

    def close(self) -> None:
        """Kill every process that is left."""
        self.process.close()

    def agent(self, rng: random.Random) -> psutil.Process | None:
        """Return the agent's process, if there is one."""
        return self._any(rng, lambda line: line[1:3] == ["-m", "celery_daemons.node"])

    def role(self, role: str, rng: random.Random) -> psutil.Process | None:
        """Return a process whose title begins with ``celery_daemons.<role>``; any of several."""
        return self._any(rng, lambda line: line[0].startswith(f"celery_daemons.{role}"))

    def environment(self, lease: float) -> dict[str, str]:
        """Return the variables by which this member differs from the others."""
        return {"REDIS": self.proxy.url, "CELERY_DAEMONS_LEASE_TTL": f"{lease:g}"}

    def _any(self, rng: random.Random, matches: Callable[[list[str]], bool]) -> psutil.Process | None:
        found = []
        for process in self.process.tree():
            try:
                line = process.cmdline()
                if line and process.status() != psutil.STATUS_ZOMBIE and matches(line):
                    found.append(process)
            except psutil.Error:
                continue
        return rng.choice(found) if found else None


class Node(Member):
    """A worker: the node ``<name>@test``."""

    def __init__(self, project: Project, name: str, stack: ExitStack, port: int, *, lease: float, folder: Path) -> None:
        # Before the processes, which have to end first.
        self.disk = Disk.mounted(folder / name, stack)
        self.process_limit = ProcessLimit.created(name, stack)
        super().__init__(project, name, stack, port)
        self.start(lease)

    def start(self, lease: float) -> None:
        """Start a worker with this lease."""
        env: Mapping[str, str] = self.environment(lease)
        options: list[str] = []
        if self.disk is not None:
            self.disk.empty()
            env = {**env, "TMPDIR": str(self.disk.temporary)}
            options = ["--logfile", str(self.disk.log)]
        self.process = Worker(self.project, self.short, concurrency=1, env=env, options=options)
        self.process.start()
        if self.process_limit is not None:
            self.process_limit.add(self.process.pid)

    def restart(self, rng: random.Random) -> None:
        """Start a new worker where the old one died, with any of the leases."""
        self.process.close()
        self.start(rng.choice(LEASES))


class Candidate(Member):
    """A monitor without a worker: ``celery … daemons monitor``."""

    def __init__(self, project: Project, name: str, stack: ExitStack, port: int, *, lease: float) -> None:
        super().__init__(project, name, stack, port)
        self._lease = lease
        self.start()

    def start(self) -> None:
        """Start the process."""
        arguments = ["daemons", "monitor", "--hostname", self.name]
        self.process = CeleryProcess(
            self.project, self.short, arguments, ready=_CANDIDATE_READY, env=self.environment(self._lease)
        )
        self.process.start()

    def restart(self) -> None:
        """Start a new process where the old one died."""
        self.process.close()
        self.start()
