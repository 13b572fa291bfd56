"""A thread that watches the event loop, and that reports where the code of a daemon is.

Not the thread that renews the lease: writing to the log may wait for a lock that a blocked daemon holds.
"""

import logging
import time
from collections.abc import Callable
from queue import Empty

from celery_daemons.domain.names import DaemonName
from celery_daemons.forkserver import unpatched
from celery_daemons.host.stall_watch import TICK, StallWatch
from celery_daemons.wire.inspection import Refusal, Stack
from celery_daemons.wire.loop_messages import AskStack, StackAnswer

logger = logging.getLogger(__name__)


class Watcher:
    """Runs the checks of a StallWatch, if there is one, and answers questions."""

    def __init__(
        self,
        *,
        send: Callable[[object], None],
        stack_of: Callable[[DaemonName], Stack | Refusal],
        watch: StallWatch | None = None,
        count: Callable[[], int] = int,
    ) -> None:
        """``count`` returns how many daemons the watched loop runs."""
        self._send = send
        self._stack_of = stack_of
        self._watch = watch
        self._count = count
        self._questions: unpatched.SimpleQueue[AskStack] = unpatched.SimpleQueue()
        self._started = False

    def start(self) -> None:
        """Start the thread, unless it runs. Call in one thread only."""
        if not self._started:
            unpatched.start_new_thread(self._run, ())
            self._started = True

    def ask(self, question: AskStack) -> None:
        """Answer a question of the agent, in the watcher's thread."""
        try:
            self.start()
        except RuntimeError as error:
            # Not raised: this thread renews the lease, and the host would end with it.
            self._send(
                StackAnswer(question.id, Refusal(why=f"its process cannot start the thread that reads stacks: {error}"))
            )
        else:
            self._questions.put(question)

    def _run(self) -> None:
        while True:
            try:
                question = self._questions.get(timeout=TICK if self._watch is not None else None)
            except Empty:
                pass
            else:
                self._answer(question)
            if self._watch is not None:
                try:
                    self._watch.check(time.perf_counter(), others=self._count() - 1)
                except Exception:
                    # Frames, coroutines and exceptions are the user's objects and may raise. Daemons continue without a
                    # watcher.
                    logger.exception("host: the event loop is no longer watched")
                    self._watch = None

    def _answer(self, question: AskStack) -> None:
        try:
            answer = self._stack_of(question.name)
        except Exception as error:
            logger.exception("daemon %s: its stack cannot be read", question.name)
            answer = Refusal(why=f"its stack cannot be read ({type(error).__name__}: {error})")
        self._send(StackAnswer(question.id, answer))
