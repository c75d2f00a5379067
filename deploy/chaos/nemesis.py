"""Lets the faults of a schedule strike and heal, and measures how long the system needs to get over them."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TypeAlias

from deploy.chaos.fault import MissedError
from deploy.chaos.schedule import Strike
from deploy.chaos.verdict import Window
from deploy.chaos.violation import Violation

Act: TypeAlias = Callable[[str, random.Random], Awaitable[str]]
"""Strikes and heals a fault of this kind by this chance; answers what was done to whom."""
Probe: TypeAlias = Callable[[], Awaitable[None]]
"""Returns as soon as the system has got over whatever there was."""

RECOVERY_SECONDS = 150.0
"""When nothing strikes for so long and the system is still not up to date, it never will be."""
ATTEMPTS = 3
FAULT_SECONDS = 240.0
"""No fault takes so long: a service that is to be there again is not."""


@dataclass(slots=True)
class Struck:
    """A fault that struck: what it did, when it struck and healed (wall time, UTC), and how long (seconds) the system then needed, if
    nothing else struck meanwhile."""

    strike: Strike
    struck_at: datetime
    what: str = ""
    healed_at: datetime | None = None
    recovered: float | None = None
    missed: bool = False
    """Another fault had struck what this one needs: it did nothing."""

    def __str__(self) -> str:
        until = f"{self.healed_at:%H:%M:%S.%f}"[:-4] if self.healed_at else "never healed"
        recovered = "" if self.recovered is None else f", over it after {self.recovered:.1f} s"
        return (
            f"{self.struck_at:%H:%M:%S.%f}"[:-4]
            + f" to {until}  {self.strike.kind} (seed {self.strike.seed}): {self.what or '?'}{recovered}"
        )


@dataclass
class Nemesis:
    """`say` hears a line whenever something strikes, heals, or is got over. What came of it stands in `timeline`."""

    act: Act
    probe: Probe
    say: Callable[[str], None]
    timeline: list[Struck] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    _at_work: dict[asyncio.Task[None], Struck] = field(default_factory=dict)
    _recovering: asyncio.Task[None] | None = None

    async def strike_all(self, strikes: Sequence[Strike]) -> None:
        """Strikes each at its time, or as soon after as what must not be beside it has healed; returns when all have healed and the
        system is over it."""
        start = monotonic()
        for strike in strikes:
            await asyncio.sleep(start + strike.at - monotonic())
            while others := [task for task, struck in self._at_work.items() if struck.strike.scene != strike.scene]:
                await asyncio.wait(others)
                self._settle()
            if strike.rested and not self._at_work:
                await self._over_it()
            self._begin(strike)
        while self._at_work:
            await asyncio.wait(self._at_work)
            self._settle()
        await self._over_it()

    def windows(self) -> list[Window]:
        """When a fault was at work, or the system had not got over it yet."""
        found = []
        for struck in self.timeline:
            healed = struck.healed_at or datetime.now(UTC)
            found.append(Window(struck.struck_at, healed + timedelta(seconds=struck.recovered or 30.0)))
        return found

    def _begin(self, strike: Strike) -> None:
        if self._recovering is not None:
            self._recovering.cancel()
            self._recovering = None
        struck = Struck(strike, datetime.now(UTC))
        self.timeline.append(struck)
        self.say(f"⚡ {strike.kind}" + (f", with {', '.join(sorted(strike.beside))}" if strike.beside else ""))
        task = asyncio.create_task(self._strike(struck), name=f"fault {strike.kind}")
        self._at_work[task] = struck
        task.add_done_callback(lambda _: self._settle())

    async def _strike(self, struck: Struck) -> None:
        strike = struck.strike
        try:
            async with asyncio.timeout(FAULT_SECONDS):
                struck.what = await self._attempted(struck)
        except Exception as error:  # noqa: BLE001  (whatever it is: the run is not what it should be, and goes on)
            struck.what = f"failed: {type(error).__name__}: {error}"
            row = {"fault": strike.kind, "seed": strike.seed, "struck": str(struck.struck_at), "error": struck.what}
            self.violations.append(Violation("a fault heals, and what it struck is there again", row))
        struck.healed_at = datetime.now(UTC)
        self.say(f"  {strike.kind} healed after {(struck.healed_at - struck.struck_at).total_seconds():.1f} s: {struck.what}")

    async def _attempted(self, struck: Struck) -> str:
        """Some faults need something that another has struck; they try again."""
        chance = random.Random(struck.strike.seed)  # noqa: S311  (to be had again, not to be kept secret)
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                return await self.act(struck.strike.kind, chance)
            except MissedError as missed:
                reason = str(missed)
                await asyncio.sleep(1)
        struck.missed = True
        return f"missed, {reason}"

    def _settle(self) -> None:
        """Takes off what has healed; when nothing is at work any more, the recovery begins."""
        healed = [self._at_work.pop(task) for task in list(self._at_work) if task.done()]
        if healed and not self._at_work:
            self._recovering = asyncio.create_task(self._recover(healed[-1]), name="recovery")

    async def _recover(self, last: Struck) -> None:
        since = monotonic()
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                await self.probe()
        except TimeoutError:
            row = {"after": str(last), "seconds": RECOVERY_SECONDS}
            self.violations.append(Violation("the system gets over every fault by itself", row))
        else:
            last.recovered = monotonic() - since
            self.say(f"  over it after {last.recovered:.1f} s")

    async def _over_it(self) -> None:
        if self._recovering is not None:
            with suppress(asyncio.CancelledError):
                await self._recovering
            self._recovering = None


def counted(timeline: Sequence[Struck]) -> Mapping[str, int]:
    """How many of each kind struck."""
    return dict(sorted(Counter(struck.strike.kind for struck in timeline if not struck.missed).items()))
