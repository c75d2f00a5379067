"""What waits to be told of an order, put right; what cannot be told is said."""

import pytest

from services.notifier.handlers import State
from services.notifier.repair import repair
from shared.service import IrreparableError, Repair
from tests.unit.notifier.world import DIGEST, NOON, World, change, december

MESSAGE = Repair(aggregate="order:A-1", actor="ann", reason="somebody looked")


def repaired(world: World) -> list[str]:
    world._run(repair(world.state, MESSAGE, world.context()))
    return world.corrections


def waits(world: World, *units: int) -> None:
    assert [notice.units for notice in world.waiting] == list(units)


def test_notices_that_were_told_or_are_obsolete_go_and_the_timer_comes_back() -> None:
    world = World()
    world.backordered(change(3, backordered=3, ship_by=december(10), promise=1))
    [told] = world.passes(DIGEST)
    world.promised(change(3, backordered=3, version=2, ship_by=december(12), promise=3))
    known = world.state.orders["A-1"]
    older = [notice._replace(version=2, units=9) for notice in world.waiting]
    known.waiting[1] = (*told.notices, *known.waiting[1], *older)  # type: ignore[index]
    due, world.timer = world.timer, None
    assert repaired(world) == ["line 1: 2 notice(s) that were told, or are obsolete, wait no longer"]
    waits(world, 3)
    assert world.timer == due
    assert len(world.passes(DIGEST)) == 1


def test_what_is_overdue_is_told_now_and_what_is_right_stays() -> None:
    world = World()
    world.shipped(change(2, shipped=2))
    before = world.waiting
    assert repaired(world) == []
    assert world.waiting == before
    world.timer, world.now = None, NOON + 3 * DIGEST
    assert repaired(world) == []
    assert world.timer == world.now
    assert len(world.passes(DIGEST)) == 1
    assert repaired(world) == []
    assert world.timer is None


def test_whom_to_write_nobody_else_knows() -> None:
    with pytest.raises(IrreparableError, match="not known whom to write"):
        list(repair(State(), MESSAGE, World().context()))
