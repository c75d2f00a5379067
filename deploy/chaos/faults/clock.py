"""A wall clock that is wrong."""

import random

from deploy.chaos import victim
from deploy.chaos.fault import Fault, MissedError
from deploy.chaos.healing import healing
from deploy.chaos.stage import Stage

_STEP_SECONDS = 600.0


async def clock_stepped(stage: Stage, chance: random.Random) -> str:
    """One instance's wall clock is stepped ten minutes ahead or back, and put right a little later: a step each time."""
    name = chance.choice(stage.names())
    ahead = chance.choice((-_STEP_SECONDS, _STEP_SECONDS))

    async def put_right() -> None:
        stage.tell(name, victim.Order(clock_ahead_seconds=0.0))

    async with stage.held(name), healing(put_right):
        if not stage.tell(name, victim.Order(clock_ahead_seconds=ahead)):
            raise MissedError(f"{name} does not take orders")
        await stage.lasts(chance, 5, 30)
    return f"{name} by {ahead:+.0f} s"


FAULTS = {
    "clock_stepped": Fault(clock_stepped, seconds=18),
}
