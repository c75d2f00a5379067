"""What a fault is."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
from aiokafka.errors import KafkaError

from deploy.chaos.stage import Stage


class MissedError(Exception):
    """What the fault had to ask before it could strike did not answer: another fault was there first. All is as it was."""


@dataclass(frozen=True)
class Fault:
    """A way to break something. Calling it strikes, lasts, heals in any case (also when cancelled) and answers whom it hit.

    Healing starts again what was stopped, and does not wait until it works again: whether it does is what a run is to find out.
    All that is left to chance is drawn from the generator that is passed in: give each strike one of its own. Two faults that
    want the same process or link take turns. Raises MissedError when it could not strike.
    """

    strike: Callable[[Stage, random.Random], Awaitable[str]]
    seconds: float
    """How long it usually takes at pace 1."""

    async def __call__(self, stage: Stage, chance: random.Random) -> str:
        """Strike; answers whom it hit, for people to read."""
        try:
            return await self.strike(stage, chance)
        except (KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise MissedError(f"{type(error).__name__}: {error}") from error
