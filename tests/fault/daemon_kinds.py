"""The daemons of the fault tests: every kind of isolation, with names that the ring spreads over all nodes."""

from collections.abc import Iterable, Mapping
from itertools import count, islice

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.ring import Ring
from tests.support.recorder import RECORDED_LAUNCHERS

VNODES = 40

HEAD = """\
import asyncio, json, os, time
from pathlib import Path
from celery import Celery
from celery_daemons import Daemons

app = Celery("proj", broker=os.environ.get("QUEUE_URL", BROKER_URL))
app.conf.update(task_default_queue=NAMESPACE, broker_connection_retry_on_startup=True)
daemons = Daemons(app, namespace=NAMESPACE, redis_url=os.environ.get("BOOK_URL", BROKER_URL), **SETTINGS)


def listed(launcher):
    names = json.loads((Path(FOLDER) / "listed.json").read_text())
    return [launcher.spec(name) for name in names if name.startswith(launcher.name + ".")]


@app.task(name="proj.note")
def note(word):
    with open(FOLDER + "/notes", "a") as notes:
        notes.write(word + "\\n")
"""

#: A thread beside the coroutine and the process of the recorder; recovery scanners list all three.
KINDS = """

@daemons.launcher("strand", isolation="thread", stop_grace=2)
def strand(ctx, number=0):
    record("begins", ctx)
    while not ctx.stopping.is_set():
        record("alive", ctx)
        ctx.sleep(0.02)


@watch.recovery_scanner
def all_watches():
    return listed(watch)


@alone.recovery_scanner
def all_alone():
    return listed(alone)


@strand.recovery_scanner
def all_strands():
    return listed(strand)
"""
SOURCE = HEAD + RECORDED_LAUNCHERS + KINDS
#: How many of each kind every node prefers.
EACH = {"watch": 2, "alone": 1, "strand": 1}


def chosen_by_ring(name: str, nodes: Iterable[str]) -> str:
    """Return the node that the ring prefers for a daemon."""
    ring = Ring({NodeName(node): 1.0 for node in nodes}, vnodes=VNODES)
    return next(ring.preference(DaemonName(name)))


def names_for(nodes: Iterable[str], each: Mapping[str, int] = EACH, *, on: str | None = None) -> list[str]:
    """Return names of which the ring gives each node, or only node ``on``, as many of each kind as ``each`` says."""
    nodes = list(nodes)
    chosen: list[str] = []
    for kind, wanted in each.items():
        for node in nodes if on is None else [on]:
            numbers = (f"{kind}.{number}" for number in count())
            chosen += islice((name for name in numbers if chosen_by_ring(name, nodes) == node), wanted)
    return sorted(chosen)
