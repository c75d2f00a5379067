"""A database that was restored from a backup knows, once it has read back, what its customers have been told, and tells the rest."""

import copy
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifier.domain import WITHOUT_DATE
from services.notifier.invariants import WHILE_READING_BACK
from services.notifier.read_back import told
from shared.contracts.base import Message
from shared.contracts.notifier import NoticeFailed, NoticeKind, NoticeSent
from shared.contracts.orders import LineEvent
from tests.unit.notifier.test_properties import STEPS, Line, agrees, check_told, step
from tests.unit.notifier.world import DIGEST, POLICY, World, change, december


class Tapped(World):
    """A world of which everything that it hears is kept."""

    def __init__(self) -> None:
        self.heard: list[LineEvent] = []
        super().__init__()

    def event(self, message: LineEvent) -> None:
        self.heard.append(message)
        super().event(message)

    def post(self) -> None:
        """The mail server takes what waits for it, or refuses it for good."""
        for key, sending in sorted(self.state.sendings.items()):
            if sending.status == "queued":
                mail = self.mails[key]
                self.failed(mail, permanent=True) if key.number % 5 == 0 else self.sent(mail)

    def read_back(self, outcomes: list[Message]) -> None:
        """What became of mails that this one may not know of."""
        for outcome in outcomes:
            self.number += 1
            self._run(told(POLICY)(self.state, outcome, self.context()), WHILE_READING_BACK)


def restored(backup: Tapped, lost: Tapped, untold: int = 0) -> Tapped:
    """The backup, once it has read back all that the lost one told but the last few, and heard again what that one heard since."""
    world = copy.deepcopy(backup)
    world.now, world.number = lost.now, lost.number + 1_000_000
    outcomes = [send.message for send in lost.sends]
    world.read_back(outcomes[len(backup.sends) : max(len(backup.sends), len(outcomes) - untold)])
    assert {type(outcome) for outcome in outcomes} <= {NoticeSent, NoticeFailed}
    for message in lost.heard[len(backup.heard) :]:
        world.event(message)
    return world


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=40), st.floats(0, 1), st.integers(0, 2), st.integers(0, 2**32))
def test_whatever_is_lost_each_thing_is_told_once(steps, share, untold, seed):
    """`untold`: so many of the last outcomes had not been published. What such a mail told is told again, nothing else."""
    world, random = Tapped(), Random(seed)
    lines = {number: Line(number, ordered=6) for number in range(1, 4)}
    shipments = cancellations = 0
    backup = copy.deepcopy(world)
    for place, (action, number, amount, day) in enumerate(steps):
        if place == int(share * len(steps)):
            backup = copy.deepcopy(world)
        if action == "wait":
            world.passes(timedelta(minutes=4 * amount) if day else timedelta(hours=6 * amount))
            if random.random() < 0.7:
                world.post()
            continue
        before = lines[number].shipped, lines[number].cancelled
        step(world, lines[number], action, amount, day)
        shipments += lines[number].shipped > before[0]
        cancellations += lines[number].cancelled > before[1]
    lost, world = world, restored(backup, world, untold)
    known = set(world.mails)
    for mail in world.passes(WITHOUT_DATE):
        agrees(mail, lines)
    check_told(world, lines, shipments, cancellations)
    posted = {key for key, sending in lost.state.sendings.items() if sending.status != "queued"}
    twice = {key for key in posted if key not in known or world.state.sendings[key].status == "queued"}
    assert len(twice) <= untold
    assert all(lost.state.sendings[key].sent_at == world.state.sendings[key].sent_at for key in posted - twice)


def lost_after(*, untold: int = 0) -> tuple[Tapped, Tapped]:
    """A world that told its customer of a date and of another one, and the backup from before it, restored."""
    world = Tapped()
    backup = copy.deepcopy(world)
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.passes(DIGEST)
    world.promised(change(3, backordered=3, ship_by=december(12), promise=2, version=2))
    world.passes(DIGEST)
    world.post()
    return world, restored(backup, world, untold)


def test_what_was_told_is_as_it_was_but_for_its_text() -> None:
    world, back = lost_after()
    assert back.passes(WITHOUT_DATE) == []
    assert back.state.told == world.state.told
    for key, mail in world.mails.items():
        mine = back.mails[key]
        assert (mine.mail_id, mine.message_id, mine.recipient, mine.body) == (mail.mail_id, mail.message_id, mail.recipient, "")
        for notice, known in zip(mail.notices, mine.notices, strict=True):
            assert (known.line, known.version, known.sku, known.units, known.ordered, known.ship_by) == (
                notice.line, notice.version, notice.sku, notice.units, notice.ordered, notice.ship_by,
            )  # fmt: skip


def test_a_date_that_nobody_knows_to_have_been_told_is_told_again_as_another_date() -> None:
    _, back = lost_after(untold=1)
    [mail] = back.passes(WITHOUT_DATE)
    [notice] = mail.notices
    assert (notice.kind, notice.was, notice.ship_by) == (NoticeKind.DATE_CHANGED, december(10), december(12))


def test_what_waits_in_the_backup_has_been_told_since() -> None:
    world = Tapped()
    world.cancelled(change(2, cancelled=2, version=1))
    backup = copy.deepcopy(world)
    world.passes(DIGEST)
    world.post()
    back = restored(backup, world)
    assert back.timer is None
    assert back.waiting == []


def test_a_mail_that_waits_in_the_backup_has_been_sent_since() -> None:
    world = Tapped()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    [mail] = world.passes(DIGEST)
    backup = copy.deepcopy(world)
    world.post()
    back = restored(backup, world)
    assert back.state.sendings == world.state.sendings
    assert list(back.mails) == [mail.key]


def test_the_same_told_in_two_mails_by_an_earlier_restore_counts_once() -> None:
    world, again = lost_after(untold=1)
    again.passes(WITHOUT_DATE)
    again.post()
    back = Tapped()
    back.read_back([send.message for send in (*world.sends, *again.sends)])
    assert [len(mail.notices) for mail in back.mails.values()] == [1, 1]
    assert back.told_of(1) == world.told_of(1)
