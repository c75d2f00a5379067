"""Links between services and brokers or PostgreSQL that are slow, cut, half open."""

import random
from collections.abc import Awaitable, Callable, Sequence

from deploy.chaos.fault import Fault
from deploy.chaos.healing import healing
from deploy.chaos.proxy import CUT, HALF_OPEN, ONLY_DOWN, ONLY_UP, PASS, RESET, TRICKLE, Mode, slow
from deploy.chaos.stage import BROKERS, Stage, database_link
from shared.settings import SERVICES

LINKS = (*BROKERS, *map(database_link, SERVICES))

Strike = Callable[[Stage, random.Random], Awaitable[str]]


def link_is(mode: Callable[[random.Random], Mode], least: float, most: float, links: Sequence[str] = LINKS) -> Strike:
    """A fault that brings one of these links into a mode for so many seconds."""

    async def strike(stage: Stage, chance: random.Random) -> str:
        name = chance.choice(links)
        proxy = stage.proxies[name]
        async with stage.held(f"link {name}"), healing(lambda: proxy.become(PASS)):
            await proxy.become(mode(chance))
            await stage.lasts(chance, least, most)
        return f"link {name}"

    return strike


FAULTS = {
    "link_slow": Fault(link_is(lambda chance: slow(chance.uniform(0.05, 0.5), jitter=0.2), 5, 20), seconds=13),
    "link_cut": Fault(link_is(lambda _: CUT, 2, 15), seconds=9),
    "link_half_open": Fault(link_is(lambda _: HALF_OPEN, 5, 40), seconds=23),
    "link_reset": Fault(link_is(lambda _: RESET, 1, 5), seconds=3),
    "link_one_way": Fault(link_is(lambda chance: chance.choice((ONLY_UP, ONLY_DOWN)), 5, 30), seconds=18),
    "link_trickling": Fault(link_is(lambda _: TRICKLE, 5, 20), seconds=13),
}
