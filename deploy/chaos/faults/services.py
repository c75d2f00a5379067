"""Services that die, hang or come and go."""

import asyncio
import random
import signal

from deploy.chaos import victim
from deploy.chaos.fault import Fault, MissedError
from deploy.chaos.healing import healing
from deploy.chaos.stage import Stage
from shared.settings import SERVICES

_DEATH_SECONDS = 20.0
_READY_SECONDS = 15.0
_MOST = 3


async def service_killed(stage: Stage, chance: random.Random) -> str:
    """SIGKILL at a random moment, started again a little later."""
    name = chance.choice(stage.names())
    async with stage.held(name), healing(lambda: stage.launch(name)):
        await stage.kill(name)
        await stage.lasts(chance, 0, 5)
    return name


async def service_killed_at(stage: Stage, chance: random.Random) -> str:
    """SIGKILL at a named point of its work, the first to third time that it gets there; it may not, for want of work."""
    point, times = chance.choice(victim.POINTS), chance.randint(1, 3)
    name = await _who_gets_to(stage, chance, point)

    async def died() -> bool:
        return not stage.runs(name)

    async def heal() -> None:
        stage.tell(name, victim.Order(die_at=""))
        await stage.launch(name)

    async with stage.held(name), healing(heal):
        if not stage.tell(name, victim.Order(die_at=f"{point}:{times}")):
            raise MissedError(f"{name} does not take orders")
        reached = await stage.becomes(died, within=_DEATH_SECONDS * stage.pace)
    return f"{name} at {point}:{times}{'' if reached else ', not reached'}"


async def _who_gets_to(stage: Stage, chance: random.Random, point: str) -> str:
    """An instance; only the one that leads ever relays."""
    names = stage.names(chance.choice(SERVICES))
    if point == victim.PUBLISHED:
        leaders = [name for name in names if (await stage.readiness(name)).get("leading")]
        names = leaders or names
    return chance.choice(names)


async def service_restarted(stage: Stage, chance: random.Random) -> str:
    """SIGTERM, started again when it has ended."""
    name = chance.choice(stage.names())
    async with stage.held(name), healing(lambda: stage.launch(name)):
        ended = await stage.stop(name)
    return f"{name}{'' if ended else ', which had to be killed'}"


async def rolling_restart(stage: Stage, chance: random.Random) -> str:
    """Every instance of a service in turn, as a deployment does it: the next one when the last is ready, or takes too long."""
    service = chance.choice(SERVICES)
    for name in stage.names(service):
        async with stage.held(name), healing(lambda name=name: stage.launch(name)):  # type: ignore[misc]
            await stage.stop(name)
        await stage.ready(name, within=_READY_SECONDS)
    return service


async def service_paused(stage: Stage, chance: random.Random) -> str:
    """SIGSTOP, and SIGCONT up to a minute later: by then others have done its work, and it does not know."""
    name = chance.choice(stage.names())

    async def resume() -> None:
        stage.signal(name, signal.SIGCONT)

    async with stage.held(name), healing(resume):
        stage.signal(name, signal.SIGSTOP)
        await stage.lasts(chance, 5, 60)
    return name


async def loop_blocked(stage: Stage, chance: random.Random) -> str:
    """Its event loop stands still, longer than its group's session, while the process lives."""
    name = chance.choice(stage.names())
    async with stage.held(name):
        seconds = chance.uniform(12, 18) * stage.pace
        if not stage.tell(name, victim.Order(block_seconds=seconds)):
            raise MissedError(f"{name} does not take orders")
        await asyncio.sleep(seconds)
    return name


async def instances_changed(stage: Stage, chance: random.Random) -> str:
    """A service goes on with one instance, then with three, then as before."""
    service = chance.choice(SERVICES)
    usual = stage.names(service)
    all_of_them = [f"{service}-{number}" for number in range(1, max(_MOST, len(usual)) + 1)]

    async def restore() -> None:
        for name in all_of_them:
            await (stage.launch(name) if name in usual else stage.stop(name))

    async with stage.held(*all_of_them), healing(restore):
        for name in usual[1:]:
            await stage.stop(name)
        await stage.lasts(chance, 5, 15)
        for name in all_of_them:
            await stage.launch(name)
        await stage.lasts(chance, 5, 15)
    return f"{service}: 1, then {len(all_of_them)}, then {len(usual)}"


FAULTS = {
    "service_killed": Fault(service_killed, seconds=3),
    "service_killed_at": Fault(service_killed_at, seconds=5),
    "service_restarted": Fault(service_restarted, seconds=2),
    "rolling_restart": Fault(rolling_restart, seconds=10),
    "service_paused": Fault(service_paused, seconds=33),
    "loop_blocked": Fault(loop_blocked, seconds=15),
    "instances_changed": Fault(instances_changed, seconds=25),
}
