"""Celery alone: tasks that never end, each with a lock of its name in Redis, as they are usually written."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
from celery import Celery
from redis import Redis

from tests.benchmarks.peers.contender import Contender, Fault, Life, LookUp, Scene
from tests.support.projects import Project
from tests.support.servers import Server
from tests.support.workers import CeleryProcess, Worker

TITLE: Final = "endless tasks with a lock"
#: Slots beside those for the daemons: for tasks that find the lock taken, and for the one that sends again.
SPARE: Final = 4

#: The lock has our lease's length and is renewed three times in it. Its value names the holder.
SOURCE: Final = """
import os, time, uuid
from celery import Celery
from redis import Redis
from redis.exceptions import LockError

LOCK = 5.0
app = Celery("proj", broker=BROKER_URL)
app.conf.update(SETTINGS["conf"])
client = Redis.from_url(BROKER_URL, decode_responses=True)

@app.task(bind=True, name="keep", ignore_result=True, max_retries=None)
def keep(self, name):
    lock = client.lock("lock:" + name, timeout=LOCK)
    holder = f"{self.request.hostname} {os.getpid()} {uuid.uuid4().hex}"
    if not lock.acquire(blocking=False, token=holder):
        if SETTINGS["again"]:
            raise self.retry(countdown=SETTINGS["again"])
        return
    try:
        while True:
            time.sleep(LOCK / 3)
            lock.reacquire()
    except LockError:
        return

@app.task(name="resend", ignore_result=True)
def resend():
    names = sorted(client.smembers("wanted"))
    for name, holder in zip(names, client.mget(["lock:" + name for name in names])):
        if holder is None:
            keep.delay(name)
"""

#: A lost message is delivered again after five seconds and a check each second, instead of an hour and a hundred.
LATE: Final = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "broker_transport_options": {
        "visibility_timeout": 5,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
}
RESENT: Final = {"beat_schedule": {"resend": {"task": "resend", "schedule": 1.0, "options": {"expires": 1.0}}}}


class Locks(Scene):
    """Two workers, each with a slot for every daemon."""

    def __init__(self, stack: ExitStack, *, pool: str, count: int, beat: bool, settings: dict[str, Any]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="locks-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = stack.enter_context(Server("valkey"))
        self._client: Redis = stack.enter_context(server.client())
        self._app = Celery(broker=server.url)
        stack.callback(self._app.close)
        project = Project(folder, SOURCE, broker_url=server.url, namespace=uuid.uuid4().hex, settings=settings)
        self._pool = pool
        self._workers: dict[str, Worker] = {}
        for name in ("w1", "w2"):
            worker = stack.enter_context(Worker(project, name, pool=pool, concurrency=count + SPARE))
            self._workers[worker.node] = worker
        if beat:
            stack.enter_context(CeleryProcess(project, "beat", ["beat", "--loglevel", "INFO"], ready="beat: Starting"))
        self._before = self._private()

    def spawn(self, names: Sequence[str]) -> None:
        """Send a task for each."""
        self._client.sadd("wanted", *names)
        with self._app.connection_for_write() as connection:
            for name in names:
                self._app.send_task("keep", [name], connection=connection)

    def lives(self, names: Sequence[str]) -> Mapping[str, Life]:
        """Return the holders of locks: each ran a moment ago, or has been dead for less than the lock's length."""
        holders = self._client.mget([f"lock:{name}" for name in names])
        held = {name: str(holder) for name, holder in zip(names, holders, strict=True) if holder}
        return {name: Life(holder.split()[0], holder) for name, holder in held.items()}

    def weigh(self, names: Sequence[str]) -> float:
        """Threads by what the workers have grown; processes of the pool by their private memory."""
        if self._pool == "threads":
            return (self._private() - self._before) / len(names)
        pids = [int(str(life.mark).split()[1]) for life in self.lives(names).values()]
        return sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / len(pids)

    def look_ups(self) -> Mapping[str, LookUp]:
        """The lock's value, or a question to all workers."""
        return {
            "lock": LookUp(lambda name: self._client.get(f"lock:{name}")),
            "inspect": LookUp(lambda _: self._app.control.inspect().active(), tries=1),
        }

    def killable(self) -> Sequence[str]:
        """Either worker."""
        return list(self._workers)

    def kill(self, node: str, fault: Fault) -> None:
        """Kill the worker's main process, or with it the pool."""
        worker = self._workers[node]
        worker.kill() if fault == "main" else worker.kill_tree()

    def _private(self) -> int:
        return sum(one.memory_full_info().uss for worker in self._workers.values() for one in worker.tree())


@contextmanager
def _scene(
    *, pool: str, count: int, beat: bool = False, again: float = 0, conf: Mapping[str, Any] | None = None
) -> Iterator[Scene]:
    with ExitStack() as stack:
        settings = {"conf": dict(conf or {}), "again": again}
        yield Locks(stack, pool=pool, count=count, beat=beat, settings=settings)


def _contenders(pool: str, count: int, again: float) -> dict[str, Contender]:
    title = f"{TITLE}, {pool}"
    scene = partial(_scene, pool=pool, count=count)
    # The kernel kills the pool's processes with their parent.
    one = partial(Contender, title=title, count=count, faults=("main",), falls_whole=True)
    return {
        pool: one(setting="defaults", scene=scene, rounds=1),
        f"{pool}-late": one(
            setting=f"acknowledged late, visible again after 5 s, tried again after {again:g} s",
            scene=partial(scene, conf=LATE, again=again),
            # Until every message was delivered twice, and the second waits to be tried again.
            settle=8,
        ),
        f"{pool}-resent": one(
            setting="sent again by beat each second", scene=partial(scene, conf=RESENT, beat=True), settle=5
        ),
    }


# Two hundred tries a second were more than two workers can do; what is late is delivered again, which makes more of it.
CONTENDERS = _contenders("prefork", count=40, again=1) | _contenders("threads", count=200, again=3)
