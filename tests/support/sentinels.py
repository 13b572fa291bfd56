"""A sentinel of Debian's Redis, watching one primary."""

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.support.servers import HOST, executable, free_port
from tests.support.waiting import wait_until

#: What the sentinel calls the primary.
NAME = "books"
#: Milliseconds of silence after which the primary counts as down.
DOWN_AFTER_MS = 1000


class Sentinel:
    """One sentinel, whose word alone is enough; it finds the primary's replicas by itself."""

    def __init__(self, primary_port: int) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="sentinel-")
        self._process: subprocess.Popen[bytes] | None = None
        self._conf = Path(self._folder.name) / "sentinel.conf"
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"dir {self._folder.name}",
            f"sentinel monitor {NAME} {HOST} {primary_port} 1",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 5000",
        ]
        self._conf.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """The address for ``daemons_redis_url``."""
        return f"sentinel://{HOST}:{self.port}/0?master_name={NAME}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [executable("redis"), self._conf, "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._knows_a_replica, within=30, because="the sentinel was started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def primary_port(self) -> int:
        """Where the primary is now."""
        found: Any = self._client().sentinel_get_master_addr_by_name(NAME)
        return int(found[1])

    def _client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, decode_responses=True, protocol=2)

    def _knows_a_replica(self) -> bool:
        try:
            return len(self._client().sentinel_slaves(NAME)) > 0
        except redis.RedisError:
            return False
