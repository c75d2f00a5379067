"""Which notices a line's story makes, and which mails they become: the rules by example."""

from datetime import timedelta

import pytest

from services.notifier.domain import WITHOUT_DATE, Mail, pause
from services.notifier.handlers import State, line_event
from shared.contracts.notifier import NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import CancelReason, LineBackordered
from shared.service import Refuse
from tests.unit.notifier.world import DIGEST, NOON, POLICY, World, change, december

MINUTE = timedelta(minutes=1)


def kinds(mail: Mail) -> list[tuple[int, NoticeKind]]:
    return [(notice.line, notice.kind) for notice in mail.notices]


def test_a_backorder_with_a_date_is_told_when_the_digest_window_closes():
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    assert world.passes(DIGEST - MINUTE) == []
    [mail] = world.passes(MINUTE)
    assert kinds(mail) == [(1, NoticeKind.BACKORDERED)]
    assert "Thursday, 10 December 2026" in mail.body
    assert mail.recipient == "ann@example.org"
    assert world.timer is None


def test_notices_of_one_window_share_a_mail_and_the_window_opens_with_the_first():
    world = World()
    world.allocated(change(2, line=1, allocated=2))
    world.passes(10 * MINUTE)
    world.backordered(change(3, line=2, backordered=3, ship_by=december(10), promise=1))
    [mail] = world.passes(5 * MINUTE)
    assert kinds(mail) == [(1, NoticeKind.ALLOCATED), (2, NoticeKind.BACKORDERED)]


def test_a_backorder_without_a_date_is_held_for_a_day_and_then_says_so():
    world = World()
    world.backordered(change(3, backordered=3))
    assert world.passes(WITHOUT_DATE - MINUTE) == []
    [mail] = world.passes(MINUTE)
    assert "no date yet" in mail.body


def test_a_date_completes_the_held_notice():
    world = World()
    world.backordered(change(3, backordered=3))
    world.passes(60 * MINUTE)
    world.promised(change(3, backordered=3, ship_by=december(10), promise=1, version=2))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.BACKORDERED)]
    assert "10 December 2026" in mail.body
    assert "no date" not in mail.body
    assert world.passes(2 * WITHOUT_DATE) == []


def test_a_date_that_comes_and_goes_does_not_hold_the_notice_longer_than_a_day():
    world = World()
    world.backordered(change(3, backordered=3))
    for promise in range(1, 250, 2):
        world.passes(7 * MINUTE)
        world.promised(change(3, backordered=3, ship_by=december(10), promise=promise))
        world.passes(7 * MINUTE)
        world.promised(change(3, backordered=3, promise=promise + 1))
    assert min(mail.created_at for mail in world.mails.values()) == NOON + WITHOUT_DATE


def test_held_notices_do_not_leave_with_others_before_their_time():
    world = World()
    world.backordered(change(3, line=1, backordered=3))
    world.allocated(change(2, line=2, allocated=2))
    [first] = world.passes(DIGEST)
    assert kinds(first) == [(2, NoticeKind.ALLOCATED)]
    [second] = world.passes(WITHOUT_DATE)
    assert kinds(second) == [(1, NoticeKind.BACKORDERED)]


def test_a_line_allocated_in_full_within_the_window_needs_no_word_of_a_backorder():
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.passes(5 * MINUTE)
    world.allocated(change(3, allocated=3, ship_by=december(10), promise=1))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.ALLOCATED)]


def test_a_line_allocated_in_part_tells_both_with_the_amounts_of_now():
    world = World()
    world.backordered(change(5, backordered=5, ship_by=december(10), promise=1))
    world.allocated(change(2, allocated=2, backordered=3, ship_by=december(10), promise=1))
    [mail] = world.passes(DIGEST)
    assert "SKU-1: 2 of 5 units\n" in mail.body
    assert "SKU-1: 3 of 5 units, expected to ship by" in mail.body


def test_further_allocations_within_the_window_are_one_notice():
    world = World()
    world.allocated(change(2, allocated=2, backordered=3, version=1))
    world.allocated(change(3, allocated=5, version=2))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.ALLOCATED)]
    assert "SKU-1: 5 units\n" in mail.body


def test_what_has_shipped_is_not_said_to_be_in_preparation():
    world = World()
    world.allocated(change(3, allocated=3, version=1))
    world.shipped(change(3, shipped=3, version=2))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.SHIPPED)]


def test_every_shipment_is_told_even_of_one_line_in_one_transaction_of_orders():
    world = World()
    world.shipped(change(1, allocated=2, shipped=1, version=7), shipment="P-1", tracking="T-1")
    world.shipped(change(2, shipped=3, version=7), shipment="P-2", tracking="T-2")
    [mail] = world.passes(DIGEST)
    assert "T-1" in mail.body
    assert "T-2" in mail.body


def test_every_cancellation_is_told_with_its_reason_in_plain_words():
    world = World()
    world.cancelled(change(1, backordered=4, cancelled=1, version=7), reason=CancelReason.CUSTOMER)
    world.cancelled(change(4, cancelled=5, version=7), reason=CancelReason.NOT_BACKORDERABLE)
    [mail] = world.passes(DIGEST)
    assert "1 of 5 units, as you asked" in mail.body
    assert "4 of 5 units, it is not in stock" in mail.body


def test_a_cancelled_line_has_no_other_news():
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.cancelled(change(3, cancelled=3, ship_by=december(10), promise=1, version=2))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.CANCELLED)]


def test_nothing_left_to_tell_writes_no_mail():
    world = World()
    world.backordered(change(3, backordered=3))
    world.allocated(change(3, allocated=3))
    assert world.timer == NOON + DIGEST
    world.shipped(change(3, shipped=3, version=2))
    world.passes(DIGEST)
    assert len(world.mails) == 1
    assert world.timer is None


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        (december(10), december(14), "later than Thursday, 10 December 2026"),
        (december(10), december(8), "sooner than Thursday, 10 December 2026"),
        (december(10), None, "no date any more (we had told you Thursday, 10 December 2026)"),
        (None, december(8), "expected to ship by Tuesday, 8 December 2026 (there was no date before)"),
    ],
)
def test_a_changed_date_tells_the_old_one_the_new_one_and_the_choices(was, now, words):
    world = World()
    world.backordered(change(3, backordered=3, ship_by=was, promise=1))
    world.passes(WITHOUT_DATE)
    world.promised(change(3, backordered=3, ship_by=now, promise=2, version=2))
    [mail] = world.passes(DIGEST)
    assert kinds(mail) == [(1, NoticeKind.DATE_CHANGED)]
    assert words in mail.body
    assert "You may wait, or cancel" in mail.body


def test_several_changes_within_a_window_tell_only_the_last_against_what_the_customer_knows():
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.passes(DIGEST)
    for promise, day in ((2, 12), (3, 20), (4, 11)):
        world.promised(change(3, backordered=3, ship_by=december(day), promise=promise))
    [mail] = world.passes(DIGEST)
    assert [notice.version for notice in mail.notices] == [4]
    assert "by Friday, 11 December 2026, later than Thursday, 10 December" in mail.body
    assert sorted(notice.version for notice in world.told) == [1, 4]


def test_a_date_that_moves_back_to_what_the_customer_knows_is_no_news():
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.passes(DIGEST)
    world.promised(change(3, backordered=3, ship_by=december(12), promise=2))
    world.promised(change(3, backordered=3, ship_by=december(10), promise=3))
    assert world.passes(2 * WITHOUT_DATE) == []
    assert world.waiting == []
    assert [notice.version for notice in world.told] == [1]


def test_a_promise_version_is_told_once_however_often_it_is_heard():
    world = World()
    for _ in range(2):
        world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
        world.promised(change(3, backordered=3, ship_by=december(10), promise=1))
        world.passes(DIGEST)
    assert len(world.mails) == 1
    assert len(world.told) == 1
    assert world.waiting == []


def test_a_promise_for_nothing_that_waits_is_no_news():
    world = World()
    world.allocated(change(3, allocated=3))
    world.promised(change(0, allocated=3, ship_by=december(10), promise=1, version=2))
    [mail] = world.passes(WITHOUT_DATE)
    assert kinds(mail) == [(1, NoticeKind.ALLOCATED)]


def test_a_sent_mail_is_told_to_the_shop_once_with_the_mail_as_cause():
    world = World()
    world.allocated(change(2, line=1, allocated=2, version=4))
    world.backordered(change(3, line=2, backordered=3, ship_by=december(10), promise=9))
    [mail] = world.passes(DIGEST)
    world.sent(mail)
    world.sent(mail)
    [send] = world.sends
    assert isinstance(send.message, NoticeSent)
    assert send.cause == send.message.mail == str(mail.mail_id)
    assert [(n.line, n.kind, n.promise_version) for n in send.message.notices] == [(1, "allocated", 4), (2, "backordered", 9)]
    assert world.state.sendings[mail.key].status == "sent"


def test_a_mail_refused_for_now_stays_queued_and_one_refused_for_good_is_told():
    world = World()
    world.allocated(change(2, allocated=2))
    [mail] = world.passes(DIGEST)
    world.failed(mail, permanent=False)
    assert (world.state.sendings[mail.key].status, world.state.sendings[mail.key].attempts, world.sends) == ("queued", 1, [])
    world.failed(mail, permanent=True)
    world.failed(mail, permanent=True)
    [send] = world.sends
    assert isinstance(send.message, NoticeFailed)
    assert world.state.sendings[mail.key].status == "failed"


def test_a_mail_written_again_by_a_replay_has_the_same_identity():
    mails = []
    for _ in range(2):
        world = World()
        world.allocated(change(2, allocated=2))
        mails += world.passes(DIGEST)
    assert mails[0] == mails[1]
    assert mails[0].message_id == f"<{mails[0].mail_id}@backorder.example>"


def test_news_of_an_order_that_was_never_accepted_is_somebodys_business():
    world = World()
    [refused] = line_event(POLICY, NoticeKind.BACKORDERED)(State(), LineBackordered(order="X", at=NOON, lines=()), world.context())
    assert isinstance(refused, Refuse)
    assert (refused.reason, "'X'" in refused.detail) == ("unknown_order", True)


def test_pauses_grow_up_to_five_minutes():
    assert [pause(n).total_seconds() for n in (1, 2, 3, 8, 9, 10, 10_000)] == [1, 2, 4, 128, 256, 300, 300]
