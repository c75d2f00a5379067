"""Brokers that die, and what happens to consumer groups and partitions."""

import random

from deploy.chaos.fault import Fault
from deploy.chaos.healing import healing
from deploy.chaos.stage import BROKERS, Stage


async def broker_killed(stage: Stage, chance: random.Random) -> str:
    """SIGKILL, started again a little later."""
    name = chance.choice(BROKERS)
    async with stage.held(name), healing(lambda: stage.launch(name)):
        await stage.kill(name)
        await stage.lasts(chance, 2, 15)
    return name


FAULTS = {
    "broker_killed": Fault(broker_killed, seconds=10),
}
