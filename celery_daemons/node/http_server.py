"""A small HTTP server for probes and metrics, with limits on everything: it runs in the loop that holds the lease."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

import h11

from celery_daemons.node.http_answer import HttpAnswer

logger = logging.getLogger(__name__)

#: Connections at a time. One more closes the oldest, so that idle clients cannot block a probe.
_MOST_CONNECTIONS: Final = 32
#: Bytes of a request's line and headers.
_LONGEST_HEAD: Final = 8192
#: Seconds for a whole request, from the connection to the last byte of the answer.
_TIMEOUT: Final = 5.0
#: Seconds until the next attempt to listen on an address that is in use, doubled up to the longest.
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
_CHUNK: Final = 4096


#: Gets path and ``Accept`` header of a GET or HEAD.
AnswerTo = Callable[[str, str], HttpAnswer]


class HttpServer:
    """Answers GET and HEAD, one request per connection. An address that is in use is tried again, and reported."""

    def __init__(
        self, *, node: str, host: str, port: int, answer: AnswerTo, report_problem: Callable[[str], None]
    ) -> None:
        """``report_problem`` gets why the server cannot listen, and an empty text once it does."""
        self._node = node
        self._host = host
        self._port = port
        self._answer = answer
        self._report_problem = report_problem
        self._writers: dict[asyncio.StreamWriter, None] = {}

    async def run(self) -> None:
        """Serve until cancelled."""
        reported, pause = "", _FIRST_RETRY
        while True:
            try:
                server = await asyncio.start_server(self._serve, self._host, self._port, limit=_CHUNK)
            except OSError as error:
                where = f"{self._host}:{self._port}"
                problem = (
                    f"daemons_http: cannot listen on {where} ({_reason(error)}), so that probes and metrics "
                    "are not served; daemons run as usual. Give each worker of a machine a port of its own"
                )
                if problem != reported:
                    reported = problem
                    logger.error("node %s: %s; trying again, at least every %g s", self._node, problem, _LONGEST_RETRY)
                    self._report_problem(problem)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY)
                continue
            self._report_problem("")
            shown = " and ".join(_url(*listening.getsockname()[:2]) for listening in server.sockets)
            logger.info("node %s: serves probes and metrics on %s", self._node, shown)
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= _MOST_CONNECTIONS:
            oldest = next(iter(self._writers))
            del self._writers[oldest]
            oldest.transport.abort()
        self._writers[writer] = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError):
            # Closing would wait until the client has read what is buffered.
            writer.transport.abort()
        finally:
            self._writers.pop(writer, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEAD)
        try:
            request = await _read_request(connection, reader)
        except h11.RemoteProtocolError as error:
            answer, with_body = HttpAnswer(status=error.error_status_hint, body=f"{error}\n".encode()), True
        else:
            if request is None:
                return
            answer, with_body = self._answer_request(request), request.method != b"HEAD"
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("content-type", answer.content_type),
            ("content-length", str(len(answer.body))),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ]
        head = h11.Response(status_code=answer.status, headers=headers)
        writer.write(connection.send(head) or b"")
        if with_body:
            writer.write(connection.send(h11.Data(data=answer.body)) or b"")
        await writer.drain()

    def _answer_request(self, request: h11.Request) -> HttpAnswer:
        if request.method not in (b"GET", b"HEAD"):
            return HttpAnswer(status=405, body=b"use GET or HEAD\n")
        accept = next((value for name, value in request.headers if name == b"accept"), b"")
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        try:
            return self._answer(path, accept.decode("latin-1"))
        except Exception:
            # A defect in an answer must not end the loop that holds the lease.
            logger.exception("node %s: answering %s failed", self._node, path)
            return HttpAnswer(status=500, body=b"failed; the log of the worker has the traceback\n")


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the request; ``None`` if the client has gone. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def _reason(error: OSError) -> str:
    # The text of asyncio repeats the address. The errors of look-ups have numbers of their own.
    return str(error) if error.errno is None or error.errno <= 0 else os.strerror(error.errno)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
