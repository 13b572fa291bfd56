"""Use a whole processor: a plain ``def`` runs in its own process, and is asked to stop before it is killed.

celery -A examples.isolated_cpu worker
redis-cli hgetall primes                            # stop the worker and start it: the search continues
"""

from celery import Celery
from redis import Redis

from celery_daemons import BlockingDaemonContext, Daemons, DaemonSpec

STEP = 20_000

app = Celery("isolated_cpu", broker="redis://localhost:6379/0")  # CELERY_BROKER_URL in the environment wins
daemons = Daemons(app, namespace="primes")


# progress_deadline: a search that does not call ctx.beat() for that long counts as hung. It is killed and restarted.
@daemons.launcher("search", progress_deadline=30, stop_grace=5)
def search(ctx: BlockingDaemonContext, first: int) -> None:
    """Count primes from ``first`` on, without slowing other daemons of the node."""
    with Redis.from_url(app.conf.broker_url, decode_responses=True) as redis:
        saved = redis.hgetall("primes")
        number, found = int(saved.get("next", first)), int(saved.get("found", 0))
        while not ctx.stopping.is_set():  # set when the node drains, or the daemon is stopped or moved
            found += sum(map(is_prime, range(number, number + STEP)))
            number += STEP
            ctx.beat()
            redis.hset("primes", mapping={"next": number, "found": found})
        ctx.log.info("stopped at %d", number)


@search.recovery_scanner
def only_one() -> list[DaemonSpec]:
    """List the search."""
    return [search.spec("search", first=2)]


def is_prime(number: int) -> bool:
    """Return whether a number is prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
