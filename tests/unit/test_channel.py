"""Messages between processes stay far below what their readers take."""

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.runs import Assignment, ClaimResult
from celery_daemons.node.outbox import ClaimsAnswered, Outbox
from celery_daemons.node.supervision.commands import SendClaims
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import BATCH
from celery_daemons.wire.arguments import LONGEST as LONGEST_ARGUMENTS
from celery_daemons.wire.channel import BATCH_BYTES, LONGEST, batches

INCARNATION = Incarnation("i")


def test_items_are_cut_into_batches_by_size_in_their_order() -> None:
    sizes = [BATCH_BYTES // 2, BATCH_BYTES // 2, 1, 2 * BATCH_BYTES, 5, 6]

    assert list(batches(sizes, lambda size: size)) == [sizes[:2], [1], [2 * BATCH_BYTES], [5, 6]]
    assert list(batches([], lambda size: size)) == []


def test_a_batch_of_the_largest_arguments_fits_into_a_frame() -> None:
    assert BATCH_BYTES + LONGEST_ARGUMENTS + BATCH * 1024 < LONGEST


def test_claims_that_redis_did_not_answer_for_their_size_stay_pending() -> None:
    # Given three claims in one request
    outbox = Outbox(keys=Keys("test"), node=NodeName("a"))
    items = [Assignment(DaemonName(f"x{number}"), Token(number)) for number in (1, 2, 3)]
    outbox.put(SendClaims(items))
    request = outbox.next_request(incarnation=INCARNATION, server="s")
    assert request is not None

    # When the first two are answered
    results = [ClaimResult(item.token, LauncherName("tail"), "[[],{}]", "1", 0) for item in items[:2]]
    assert outbox.answered(request, results) == ClaimsAnswered(items[:2], results)

    # Then the third is sent next
    following = outbox.next_request(incarnation=INCARNATION, server="s")
    assert following is not None
    assert following.batch == dict(items[2:])
