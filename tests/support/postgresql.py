"""A real PostgreSQL on loopback, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from signal import SIGINT
from typing import Any

from tests.support.managed_process import ManagedProcess
from tests.support.servers import HOST, free_port
from tests.support.waiting import wait_until

#: Seconds in which a server starts, or ends, on a loaded build machine.
LIMIT = 90.0
#: Where Debian has the programs of each version; only those for clients are on PATH.
PROGRAMS = Path("/usr/lib/postgresql")
#: Accounts under which the server runs if the tests run as root, which it refuses.
ACCOUNTS = ("postgres", "nobody")


def program(name: str) -> Path:
    """Return the path of a program of the newest PostgreSQL."""
    found = [path for path in PROGRAMS.glob(f"*/bin/{name}") if path.parts[-3].isdigit()]
    if not found:
        raise AssertionError(f"no {name}: install PostgreSQL with your system's packages (apt-get install postgresql)")
    return max(found, key=lambda path: int(path.parts[-3]))


class PostgreSQL(ManagedProcess):
    """One PostgreSQL server with the database ``postgres`` and the superuser ``tester`` without a password.

    It keeps its port and its data through restarts.
    """

    def __init__(self) -> None:
        self._initdb, self._postgres = program("initdb"), program("postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.port = free_port()
        self._account: dict[str, Any] = {}
        super().__init__(self.folder.with_suffix(".log"))
        if os.geteuid() == 0:
            account = next(one for one in pwd.getpwall() if one.pw_name in ACCOUNTS)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the entry for Django's setting ``DATABASES``."""
        place = {"HOST": HOST, "PORT": self.port, "NAME": "postgres", "USER": "tester"}
        return {"ENGINE": "django.db.backends.postgresql", **place, **more}

    def start(self) -> None:
        """Start the server; at first, create the data."""
        if not (self.folder / "PG_VERSION").exists():
            subprocess.run(
                [self._initdb, "--pgdata", self.folder, "--username", "tester", "--auth", "trust", "--no-sync"],
                cwd="/",
                check=True,
                capture_output=True,
                timeout=LIMIT,
                **self._account,
            )
        options = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": self.folder, "fsync": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._launch([self._postgres, "-D", self.folder, *arguments], cwd="/", **self._account)

    def wait_ready(self) -> None:
        """Wait until the server answers queries."""

        def answers() -> bool:
            assert self.running, self.output
            import psycopg

            try:
                self.connections()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, within=LIMIT, because="the server was just started")

    def stop(self) -> None:
        """End every session and the server."""
        process = self._started()
        process.send_signal(SIGINT)
        process.wait(LIMIT)

    def restart(self) -> None:
        """End every session, and start the server again."""
        self.stop()
        self.start()
        self.wait_ready()

    def close(self) -> None:
        """End the server, and remove its folder."""
        if self.running:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def connections(self) -> int:
        """Return how many other clients are connected."""
        return int(self.value("select count(*) from pg_stat_activity where backend_type = 'client backend'")) - 1

    def value(self, query: str) -> Any:
        """Return the first value of a query's answer."""
        with self._connected() as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]

    def execute(self, command: str) -> None:
        """Run a command that has no answer."""
        with self._connected() as connection:
            connection.execute(command)

    def _connected(self) -> Any:
        import psycopg

        address = f"host={HOST} port={self.port} dbname=postgres user=tester"
        return psycopg.connect(address, connect_timeout=10)
