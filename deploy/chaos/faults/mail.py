"""A mail server that is away, refuses for now, or takes its time."""

import random

from deploy.chaos.fault import Fault
from deploy.chaos.faults.network import link_is
from deploy.chaos.healing import healing
from deploy.chaos.proxy import slow
from deploy.chaos.stage import Stage
from deploy.local import system

_REFUSAL = "451 4.3.2 not now, try again later"


async def smtp_down(stage: Stage, chance: random.Random) -> str:
    """SIGKILL, started again a little later."""
    async with stage.held(system.SMTP), healing(lambda: stage.launch(system.SMTP)):
        await stage.kill(system.SMTP)
        await stage.lasts(chance, 3, 20)
    return system.SMTP


async def smtp_refusing(stage: Stage, chance: random.Random) -> str:
    """Answers every mail with 'not now'."""

    async def heal() -> None:
        await stage.stop(system.SMTP)
        await stage.launch(system.SMTP)

    async with stage.held(system.SMTP), healing(heal):
        await stage.stop(system.SMTP)
        await stage.launch(system.SMTP, "--refuse", _REFUSAL)
        await stage.lasts(chance, 3, 15)
    return system.SMTP


FAULTS = {
    "smtp_down": Fault(smtp_down, seconds=12),
    "smtp_refusing": Fault(smtp_refusing, seconds=10),
    "smtp_slow": Fault(link_is(lambda chance: slow(chance.uniform(0.3, 2.0)), 5, 20, links=(system.SMTP,)), seconds=13),
}
