"""``python -m celery_daemons.node --fd N NODENAME``: the agent, as the worker starts it."""

import argparse
import asyncio
import logging
import multiprocessing.util
import os
import shutil
import socket
import sys
import tempfile

import msgspec

from celery_daemons.forkserver import logs
from celery_daemons.wire.messages import Boot


def main() -> None:
    """Read the boot document from standard input, and live."""
    parser = argparse.ArgumentParser(prog="python -m celery_daemons.node")
    parser.add_argument("--fd", type=int, required=True, help="the socket to the worker, inherited")
    parser.add_argument("--lifeline", type=int, required=True, help="a socket that every host holds open, inherited")
    parser.add_argument("node", metavar="NODENAME")
    arguments = parser.parse_args()
    boot = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Boot)
    control = socket.socket(fileno=arguments.fd)
    lifeline = socket.socket(fileno=arguments.lifeline)
    for fd in (arguments.fd, arguments.lifeline):
        os.set_inheritable(fd, False)
    sys.path[:] = boot.sys_path
    _use_folder(boot.tempdir)
    logs.plain("daemons", level=boot.loglevel, logfile=boot.logfile)
    from celery_daemons.node.agent import Agent

    async def live() -> None:
        await Agent(boot, control, lifeline).run()

    status = 1
    try:
        asyncio.run(live())
        status = 0
    except Exception:
        logging.getLogger("celery_daemons.node").critical("node %s: the agent failed", boot.node, exc_info=True)
    shutil.rmtree(boot.tempdir, ignore_errors=True)
    # Not sys.exit: multiprocessing would wait for hosts that end on their own account.
    logging.shutdown()
    os._exit(status)


def _use_folder(folder: str) -> None:
    """Let multiprocessing keep its sockets in a folder that somebody removes, also if this process is killed."""
    tempfile.tempdir = folder
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = None


if __name__ == "__main__":
    main()
