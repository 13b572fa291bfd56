"""The nodes of the model: each has one agent after the other."""

from celery_daemons.domain.names import NodeName
from celery_daemons.settings import Settings
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.config import SETTINGS
from tests.unit.protocol.world import SLOWEST, Fate, World


class Nodes:
    """Starts agents, and finds them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._count = 0

    def start(
        self,
        node: NodeName,
        previous: ModelAgent | None,
        fate: Fate,
        *,
        rate: float = SLOWEST,
        settings: Settings = SETTINGS,
    ) -> ModelAgent:
        """Let a new agent join; ``previous`` is a dead one that the same worker started before it."""
        self._count += 1
        name = f"{node}{self._count}"
        agent = ModelAgent(self.world, node, name=name, previous=previous, rate=rate, settings=settings)
        self.world.agents.append(agent)
        agent.join(fate, previous)
        return agent

    def seems_free(self, node: NodeName) -> bool:
        """Return whether only Redis's clock says that a lease is over, to a new worker of that name.

        The guarantees page names this limit: the clock was set forward while the holder is cut off.
        """
        now, set_at = self.world.now, self.world.clock_set_forward_at
        return any(
            agent.node == node and agent.lease_until > now and agent.renewed_at <= set_at for agent in self.world.agents
        )
