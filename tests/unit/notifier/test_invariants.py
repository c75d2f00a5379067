"""Every bug planted in the rules of the notifier is found before anything is saved. (That the real ones break nothing, the world itself
asserts after every transaction of every other test.)"""

from dataclasses import replace
from typing import Any

import pytest

from services.notifier import domain, handlers
from services.notifier.handlers import State
from services.notifier.invariants import CHECKS
from shared.service import Corrected
from tests.unit.notifier.world import DIGEST, BrokenError, World, change, december

ONE_WORD, NEWER, GATHERED, OUTCOMES = CHECKS
GATHER, PROMISED, PUT = domain.gathered, domain._promised, State.put_sending


def play() -> None:
    """Backordered, promised another day, allocated, shipped and cancelled; one mail is sent, one refused."""
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    world.promised(change(3, backordered=3, version=2, ship_by=december(11), promise=2))
    [first] = world.passes(DIGEST)
    world.sent(first)
    world.promised(change(3, backordered=3, version=2, ship_by=december(11), promise=2))
    world.allocated(change(2, allocated=2, backordered=1, version=3, ship_by=december(12), promise=3))
    world.shipped(change(2, shipped=2, backordered=1, version=4))
    world.shipped(change(2, shipped=2, backordered=1, version=4))
    world.cancelled(change(1, shipped=2, cancelled=1, version=5))
    [second] = world.passes(DIGEST)
    world.failed(second, permanent=True)
    assert not world.waiting


def told_again(waiting: Any, _told: Any, *rest: Any, **when: Any) -> Any:
    return PROMISED(waiting, None, *rest, **when)


def leaves_the_last(waiting: Any, now: Any) -> Any:
    due, left = GATHER(waiting, now)
    return (due[:-1], {**left, due[-1].line: due[-1:]}) if len(due) > 1 else (due, left)


def gathers_nothing(state: State, mail: Any) -> None:
    state.mails[mail.key] = replace(mail, notices=())


def twice(waiting: Any, now: Any) -> Any:
    due, left = GATHER(waiting, now)
    return due * 2, left


def other_status(state: State, sending: Any) -> None:
    PUT(state, replace(sending, status="failed" if sending.status == "sent" else "sent"))


BUGS = {
    "keeps what is obsolete": (domain, "_replaces", lambda *_: False, ONE_WORD),
    "tells a promise again": (domain, "_promised", told_again, NEWER),
    "leaves something due behind": (handlers, "gathered", leaves_the_last, GATHERED),
    "writes a mail about nothing": (State, "write", gathers_nothing, GATHERED),
    "says things twice": (handlers, "gathered", twice, GATHERED),
    "tells another outcome": (State, "put_sending", other_status, OUTCOMES),
    "keeps an outcome to itself": (handlers, "Send", lambda *_, **__: Corrected("nothing"), OUTCOMES),
}


def test_the_story_that_the_bugs_are_planted_in_is_right() -> None:
    play()


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_its_invariant_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, function, bug, invariant = BUGS[name]
    monkeypatch.setattr(owner, function, bug)
    with pytest.raises(BrokenError) as error:
        play()
    assert invariant in {broken for broken, _, _ in error.value.args[0]}
    assert {aggregate for _, aggregate, _ in error.value.args[0]} == {"order:A-1"}
