"""Processes of daemons where the system refuses new threads."""

import threading

import fakeredis
import pytest

from celery_daemons import AddressBook, DaemonsError
from celery_daemons.domain.names import DaemonName
from celery_daemons.forkserver import unpatched
from celery_daemons.host.watcher import Watcher
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.wire.inspection import Refusal, Stack
from celery_daemons.wire.loop_messages import AskStack, StackAnswer
from tests.support.waiting import wait_until


def test_a_question_for_a_stack_is_refused_and_the_host_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks: a question of an operator ended the process of the daemon."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    # Given
    answers: list[object] = []
    watcher = Watcher(send=answers.append, stack_of=lambda _: Stack(kind="process", pid=1, token=1, stacks=[]))

    # When
    with monkeypatch.context() as refused:
        refused.setattr(unpatched, "start_new_thread", refuse)
        watcher.ask(AskStack(1, DaemonName("x")))

    # Then
    (refusal,) = answers
    assert isinstance(refusal, StackAnswer)
    assert isinstance(refusal.answer, Refusal)
    assert "can't start new thread" in refusal.answer.why

    # When threads can be started again, then it answers
    watcher.ask(AskStack(2, DaemonName("x")))
    wait_until(lambda: len(answers) == 2, within=10, because="the thread looks")
    assert isinstance(answers[1], StackAnswer)
    assert answers[1].id == 2


@pytest.mark.parametrize("forked", [False, True])
def test_an_address_book_that_nothing_can_follow_raises_an_error_at_every_call(
    monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    """It answered from its copy, and after one lease no daemon had an address."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    # Given
    book = AddressBook(Store("redis://double", Keys("book"), client=fakeredis.FakeRedis()), vnodes=10)
    book._forked = forked
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", refuse)

        # When, then
        if not forked:
            with pytest.raises(DaemonsError, match=r"cannot be followed \(can't start new thread\): raise the limit"):
                book.__enter__()
        for _ in range(2):
            with pytest.raises(DaemonsError, match="cannot be followed" if forked else "is not open"):
                book.locate("x")

    # When threads can be started again, then it opens
    with book:
        assert book.locate("x") is None
