"""A node that cannot start processes takes no daemons, keeps trying, and says why."""

import errno
import itertools

import pytest

from celery_daemons.node.serving import Serving

NO_SOCKET = FileNotFoundError(errno.ENOENT, "No such file or directory")
NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def serving() -> Serving:
    return Serving()


def test_one_failed_fork_is_no_reason_to_refuse_daemons(serving: Serving) -> None:
    serving.fork_failed(NO_SOCKET, now=0.0)

    assert serving.problem == ""
    assert not serving.retry_due(1000.0)


def test_forks_that_keep_failing_keep_the_node_from_serving(serving: Serving) -> None:
    for now in range(5):
        serving.fork_failed(NO_SOCKET, now=float(now))

    assert serving.problem == "no process can be forked: [Errno 2] No such file or directory"


def test_a_fork_server_that_has_died_is_named_although_its_error_has_no_text(serving: Serving) -> None:
    serving.fork_failed(EOFError(), now=0.0)
    serving.fork_failed(EOFError(), now=9.0)

    assert serving.problem == "no process can be forked: the fork server has died"


def test_an_app_that_does_not_load_keeps_the_node_from_serving_at_once(serving: Serving) -> None:
    serving.load_failed("the Celery app 'proj' cannot be imported here", now=0.0)

    assert serving.problem == "the Celery app 'proj' cannot be imported here"
    assert serving.take_new_server()


def test_a_shortage_needs_no_new_fork_server_and_a_lost_socket_does(serving: Serving) -> None:
    # Given a node whose agent is out of file descriptors
    serving.fork_failed(NO_DESCRIPTOR, now=0.0)
    serving.fork_failed(NO_DESCRIPTOR, now=9.0)

    # Then the next attempt uses the fork server that there is
    assert not serving.take_new_server()

    # When the socket of the fork server is gone, then the next attempt starts another, once
    serving.fork_failed(NO_SOCKET, now=10.0)
    assert [serving.take_new_server(), serving.take_new_server()] == [True, False]


def test_attempts_to_serve_again_become_rarer_and_go_on_without_end(serving: Serving) -> None:
    serving.load_failed("no module named gone", now=0.0)

    attempts = [now / 10 for now in range(3000) if serving.retry_due(now / 10)]

    assert attempts[:4] == [1.0, 3.0, 7.0, 15.0]
    assert max(later - earlier for earlier, later in itertools.pairwise(attempts)) == 30.0
    assert attempts[-1] > 250


def test_attempts_to_serve_again_for_days_do_not_overflow_the_pause(serving: Serving) -> None:
    serving.load_failed("no module named gone", now=0.0)

    assert all(serving.retry_due(now=31.0 * attempt) for attempt in range(1, 1200))


def test_a_node_serves_again_once_a_host_is_ready(serving: Serving) -> None:
    serving.load_failed("no module named gone", now=0.0)

    serving.host_ready()

    assert (serving.problem, serving.retry_due(1000.0), serving.take_new_server()) == ("", False, False)
