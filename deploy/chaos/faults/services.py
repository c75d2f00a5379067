"""Services that die, hang or come and go."""

import random
import signal

from deploy.chaos.fault import Fault
from deploy.chaos.healing import healing
from deploy.chaos.stage import Stage


async def service_killed(stage: Stage, chance: random.Random) -> str:
    """SIGKILL at a random moment, started again a little later."""
    name = chance.choice(stage.names())
    async with stage.held(name), healing(lambda: stage.launch(name)):
        await stage.kill(name)
        await stage.lasts(chance, 0, 5)
    return name


async def service_paused(stage: Stage, chance: random.Random) -> str:
    """SIGSTOP, and SIGCONT up to a minute later: by then others have done its work, and it does not know."""
    name = chance.choice(stage.names())

    async def resume() -> None:
        stage.signal(name, signal.SIGCONT)

    async with stage.held(name), healing(resume):
        stage.signal(name, signal.SIGSTOP)
        await stage.lasts(chance, 5, 60)
    return name


FAULTS = {
    "service_killed": Fault(service_killed, seconds=3),
    "service_paused": Fault(service_paused, seconds=33),
}
