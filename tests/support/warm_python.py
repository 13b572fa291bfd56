"""Commands in processes that start with Celery's command line imported: most of a command's time is that import.

A server imports once and forks for each command. The command has its own process, arguments, environment, folder and
streams; it shares only what the server has imported, none of which belongs to a project.
"""

import atexit
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The largest request, in bytes: arguments and environment.
REQUEST_MAX = 200_000
#: What every command imports, whatever the project is.
IMPORTED = (
    "celery.bin.celery",
    "celery_daemons.cli.show",
    "celery_daemons.client.cluster_client",
    "kombu.transport.redis",
)


class WarmPython:
    """A server that runs ``python -m celery`` for the tests of one process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-m", "tests.support.warm_python", str(descriptor)]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[descriptor])

    def celery(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], within: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m celery`` to its end, at most so many seconds, and return what it printed."""
        argv = ["celery", *arguments]
        request = json.dumps({"argv": argv, "cwd": str(cwd), "env": dict(env)}).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            with theirs:
                socket.send_fds(self._socket, [request], [stdout.fileno(), stderr.fileno(), theirs.fileno()])
            ours.settimeout(within)
            status = int(ours.recv(16) or b"-1")
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(argv, status, stdout.read().decode(), stderr.read().decode())

    def close(self) -> None:
        """End the server."""
        self._socket.close()
        self._process.wait()


@cache
def warm_python() -> WarmPython:
    """Return the server of this process; it starts at the first call and ends with the process."""
    server = WarmPython()
    atexit.register(server.close)
    return server


def serve(requests: socket.socket) -> None:
    """Fork for each request and return in the process that runs the command; the server itself never returns."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_MAX, 3)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        reap()
    requests.close()
    stdout, stderr, answer = descriptors
    command = os.fork()
    if command:
        _, status = os.waitpid(command, 0)
        os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(answer)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    asked = json.loads(request)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["argv"]
    sys.path[:1] = [asked["cwd"], *asked["env"].get("PYTHONPATH", "").split(os.pathsep)]


def reap() -> None:
    """Collect the processes that have reported the end of a command."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    with socket.socket(fileno=int(sys.argv[1])) as requests_socket:
        serve(requests_socket)
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
