"""Links between services and brokers or PostgreSQL that are slow, cut, half open."""

import random
from collections.abc import Awaitable, Callable

from deploy.chaos.fault import Fault
from deploy.chaos.healing import healing
from deploy.chaos.proxy import CUT, PASS, Mode
from deploy.chaos.stage import BROKERS, Stage, database_link
from shared.settings import SERVICES

LINKS = (*BROKERS, *map(database_link, SERVICES))


def link_is(mode: Callable[[random.Random], Mode], least: float, most: float) -> Callable[[Stage, random.Random], Awaitable[str]]:
    """A fault that brings one link into a mode for so many seconds."""

    async def strike(stage: Stage, chance: random.Random) -> str:
        name = chance.choice(LINKS)
        proxy = stage.proxies[name]
        async with stage.held(f"link {name}"), healing(lambda: proxy.become(PASS)):
            await proxy.become(mode(chance))
            await stage.lasts(chance, least, most)
        return f"link {name}"

    return strike


FAULTS = {
    "link_cut": Fault(link_is(lambda _: CUT, 2, 15), seconds=9),
}
