"""Send a task to the node of a daemon: a room listens on a socket of its machine, so only tasks on that node reach it.

celery -A examples.route_to_daemon worker           # on as many machines as you like
python -m examples.route_to_daemon lobby            # find the room and visit it
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from celery import Celery

from celery_daemons import DaemonContext, Daemons, DaemonSpec

ROOMS = ("lobby", "kitchen", "attic")
REDIS = "redis://localhost:6379/0"  # CELERY_BROKER_URL and CELERY_RESULT_BACKEND in the environment win

app = Celery("route_to_daemon", broker=REDIS, backend=REDIS)
daemons = Daemons(app, namespace="rooms")


def socket_of(room: str) -> Path:
    """Return the path where a room listens on its machine."""
    return Path(tempfile.gettempdir(), f"room-{room}.sock")


@daemons.launcher("room")
async def room(ctx: DaemonContext, name: str) -> None:
    """Keep state in memory that exists once: here, the number of visits."""
    visits = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.write(f"visit {visits} to the {name}, which is on {ctx.node}".encode())
        writer.close()

    async with await asyncio.start_unix_server(answer, socket_of(name)) as server:
        await server.serve_forever()


@room.recovery_scanner
def every_room() -> Iterator[DaemonSpec]:
    """List one daemon per room."""
    for name in ROOMS:
        yield room.spec(f"room.{name}", name)


@app.task(name="visit")
def visit(name: str) -> str:
    """Visit a room. The task runs on the room's node, because it is sent to that node's queue."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(socket_of(name)))
        return b"".join(iter(lambda: line.recv(4096), b"")).decode()


def main() -> None:
    """Visit the rooms named on the command line."""
    for name in sys.argv[1:]:
        address = daemons.locate(f"room.{name}")
        if address is None:
            print(f"the {name} is on no node at the moment")
        else:
            print(visit.apply_async((name,), queue=address.queue).get(timeout=10))


if __name__ == "__main__":
    main()
