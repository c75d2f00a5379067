"""A broken correspondence on its real tables: found, held back with its mails, repaired, caught up with."""

from datetime import timedelta

import pytest

from services.notifier import store
from shared.contracts.orders import LineBackordered
from tests.integration.guard.conftest import Make
from tests.integration.guard.keeper import NOON, Keeper
from tests.unit.notifier.world import accepted, change, december

COPY = (
    "UPDATE correspondence c SET waiting = (SELECT json_agg(n) FROM (SELECT json_array_elements(waiting) AS n FROM correspondence"
    " WHERE order_id = 'A' UNION ALL SELECT json_array_elements(waiting) FROM correspondence WHERE order_id = 'A') AS twice) WHERE order_id = 'A'"
)

DAMAGE = {
    COPY: (True, "line 1: 1 notice(s) that were told, or are obsolete, wait no longer"),
    "DELETE FROM runtime.timer": (True, "its numbers are right"),
    "UPDATE runtime.timer SET due = '2099-01-01Z'": (True, "its numbers are right"),
    "DELETE FROM notice WHERE order_id = 'A'": (False, "mails_have_their_notices"),
    "DELETE FROM mail WHERE order_id = 'A'": (False, "notices_have_their_mail"),
}


@pytest.fixture
async def notifier(keeper: Make) -> Keeper:
    """A was told by mail that its line 2 waits, and is to be told so of line 1; B knows everything."""
    it = await keeper("notifier")
    await it.hears(accepted("A"), accepted("B"))
    for order in "AB":
        await it.hears(LineBackordered(order=order, at=NOON, lines=(change(2, line=2, backordered=2, ship_by=december(9), promise=1),)))
    await it.passes(timedelta(hours=1))
    await it.hears(LineBackordered(order="A", at=NOON, lines=(change(3, backordered=3, ship_by=december(9), promise=1),)))
    assert await it.broken() == {}
    assert await it.looks() == []
    return it


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_was_changed_by_hand_is_found_and_repaired_or_said(notifier: Keeper, damage: str) -> None:
    repairable, words = DAMAGE[damage]
    await notifier.pool.execute(damage)
    assert await notifier.looks() == ["order:A"]
    assert {mail.order for mail in await store.queued(notifier.pool, 9)} == {"B"}
    for order in "AB":
        news = change(1, line=3, backordered=1, ship_by=december(8), promise=1)
        await notifier.hears(LineBackordered(order=order, at=NOON, lines=(news,)))
    assert await notifier.parked() == [("order:A", "quarantined", "order:A")]
    repaired, result = await notifier.repairs("order:A")
    assert repaired == repairable
    assert words in result
    if not repairable:
        assert await notifier.looks() == ["order:A"]
        return
    assert await notifier.looks() == []
    assert await notifier.broken() == {}
    assert await notifier.parked() == []
    await notifier.passes(timedelta(hours=1))
    told = await notifier.pool.fetch("SELECT order_id, line FROM notice ORDER BY 1, 2")
    assert [tuple(row) for row in told] == [("A", 1), ("A", 2), ("A", 3), ("B", 2), ("B", 3)]
    assert {mail.order for mail in await store.queued(notifier.pool, 9)} == {"A", "B"}
