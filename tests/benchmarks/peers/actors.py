"""Ray: named detached actors, on two nodes of one cluster."""

import contextlib
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psutil

from tests.benchmarks.peers.contender import WARM, Contender, Fault, Life, LookUp, Scene
from tests.support.processes import wait_gone
from tests.support.waiting import wait_until

TITLE: Final = "Ray, named detached actors"
NAMESPACE: Final = "bench"
#: A loopback address that Ray does not replace by the machine's outward one, as it does with 127.0.0.1.
HOST: Final = "127.0.0.2"
READY_LIMIT: Final = 60.0
#: What a node of a machine like this would say of itself.
NODE: Final = {"num_cpus": os.cpu_count() or 1, "node_ip_address": HOST}

#: A node is dead after three missed looks a fifth of a second apart, instead of five of three seconds.
QUICK: Final = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 200,
    "health_check_failure_threshold": 3,
}


class Actors(Scene):
    """The head node, which is not killed, and another, which is."""

    def __init__(self, cluster: Any, options: Mapping[str, Any]) -> None:
        import ray

        # Defined here, it is sent by its value: an actor's process does not import this module and what that imports.
        class Rest:
            pass

        self._ray = ray
        self._node = cluster.add_node(**NODE)
        ray.init(
            address=cluster.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _node_ip_address=HOST,
        )
        self._rest: Any = ray.remote(Rest)
        self._options = {"lifetime": "detached", **options}
        self.spawn(warm := [f"rest.{number}" for number in range(WARM)])
        wait_until(lambda: len(self.lives(warm)) == WARM, within=READY_LIMIT, because="the first actors were created")

    def spawn(self, names: Sequence[str]) -> None:
        """Create an actor for each; no handle is kept, so a look-up is not answered by the creator."""
        for name in names:
            self._rest.options(name=name, **self._options).remote()

    def lives(self, names: Sequence[str]) -> Mapping[str, Life]:
        """By the control store's table of actors: alive is one whose constructor has returned."""
        return {name: Life(actor["Address"]["NodeID"], actor["Pid"]) for name, actor in self._alive(names)}

    def weigh(self, names: Sequence[str]) -> float:
        """By the private memory of the actors' processes."""
        return sum(psutil.Process(actor["Pid"]).memory_full_info().uss for _, actor in self._alive(names)) / len(names)

    def look_ups(self) -> Mapping[str, LookUp]:
        """A handle from the control store."""
        return {"get_actor": LookUp(self._ray.get_actor)}

    def killable(self) -> Sequence[str]:
        """The node beside the head: with the head's, the control store would end and the cluster with it."""
        return [self._node.node_id]

    def kill(self, node: str, fault: Fault) -> None:
        """Kill the raylet, or with it all that it has started."""
        (info,) = self._node.all_processes["raylet"]
        raylet = psutil.Process(info.process.pid)
        started = raylet.children(recursive=True) if fault == "all" else []
        for one in (raylet, *started):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        # Its workers take a raylet that nobody has waited for as alive, and live on.
        info.process.wait()
        wait_gone(started)

    def _alive(self, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        from ray._private import state

        wanted = set(names)
        for actor in state.actors().values():
            if actor["State"] == "ALIVE" and actor["Name"] in wanted:
                yield actor["Name"], actor


@contextmanager
def _scene(*, config: Mapping[str, Any] | None = None, **options: Any) -> Iterator[Scene]:
    # Short: sockets are made in it.
    folder = tempfile.mkdtemp(prefix="ray-")
    os.environ.update(RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0")
    import ray
    from ray.cluster_utils import Cluster

    # Ray prints a message for each killed node, on standard output and standard error.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "include_dashboard": False, "_system_config": dict(config or {})},
        )
        try:
            yield Actors(cluster, options)
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


CONTENDERS = {
    "ray": Contender(title=TITLE, setting="defaults", count=40, scene=_scene, faults=("main",), rounds=1),
    "ray-restarts": Contender(
        title=TITLE,
        setting="restarted without end",
        count=40,
        scene=partial(_scene, max_restarts=-1),
        faults=("main",),
    ),
    "ray-tuned": Contender(
        title=TITLE,
        setting="restarted without end, no CPU asked for, spread, checked five times a second",
        count=40,
        scene=partial(_scene, config=QUICK, max_restarts=-1, num_cpus=0, scheduling_strategy="SPREAD"),
    ),
}
