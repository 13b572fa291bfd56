"""A real RabbitMQ on loopback, in a folder of its own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kombu.connection import Connection

from tests.support.managed_process import ManagedProcess
from tests.support.servers import HOST, free_port
from tests.support.waiting import wait_until

#: Seconds in which the virtual machine of Erlang starts on a loaded build machine.
START_LIMIT = 90.0
#: Debian's programs change the user first; these do not.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")


class RabbitMQ(ManagedProcess):
    """One RabbitMQ server with the user ``guest``."""

    def __init__(self) -> None:
        if not (PROGRAMS / "rabbitmq-server").exists():
            raise AssertionError("no rabbitmq-server: install it with your system's packages (apt-get install …)")
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.port = free_port()
        super().__init__(self.folder / "server.log")
        (self.folder / "plugins").write_text("[].\n")
        self._env = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "ERL_EPMD_ADDRESS": HOST,
        }

    def url(self, user: str = "guest") -> str:
        """Return the URL of the broker for a user, whose password is the name."""
        return f"amqp://{user}:{user}@{HOST}:{self.port}//"

    def start(self) -> None:
        """Start the server."""
        self._launch([PROGRAMS / "rabbitmq-server"], env=self._env, start_new_session=True)

    def wait_ready(self) -> None:
        """Wait until the server takes connections."""

        def answers() -> bool:
            assert self.running, self.output
            try:
                with Connection(self.url()) as connection:
                    connection.ensure_connection(max_retries=1, timeout=1)
            except Exception:  # noqa: BLE001 - the transport has errors of its own
                return False
            return True

        wait_until(answers, within=START_LIMIT, because="the server was just started")

    def close(self) -> None:
        """Kill the server, and remove its folder."""
        if self.running:
            os.killpg(self.pid, 9)
            self._started().wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` and return what it prints; a failure fails the test."""
        command: Sequence[str | Path] = [PROGRAMS / "rabbitmqctl", "--quiet", *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout
