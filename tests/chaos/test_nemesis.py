"""The nemesis keeps to its schedule, lets nothing strike beside what it must not, and tells what did not heal."""

import asyncio
import random

import pytest

from deploy.chaos import nemesis as module
from deploy.chaos.fault import MissedError
from deploy.chaos.nemesis import Nemesis, counted
from deploy.chaos.schedule import Strike


class World:
    """Faults of some hundredths of a second; remembers what was at work at once, and how often it was asked whether all is well."""

    def __init__(self, seconds: float = 0.05, recovery: float = 0.0) -> None:
        self.seconds, self.recovery = seconds, recovery
        self.at_work: list[str] = []
        self.together: set[frozenset[str]] = set()
        self.over = 0
        self.said: list[str] = []

    async def act(self, kind: str, chance: random.Random) -> str:
        self.at_work.append(kind)
        self.together.add(frozenset(self.at_work))
        await asyncio.sleep(self.seconds)
        self.at_work.remove(kind)
        if kind == "broken":
            raise RuntimeError("it never came back")
        if kind == "impossible":
            raise MissedError("somebody was there first")
        return f"struck {chance.random():.3f}"

    async def probe(self) -> None:
        assert not self.at_work
        await asyncio.sleep(self.recovery)
        self.over += 1

    def nemesis(self) -> Nemesis:
        return Nemesis(self.act, self.probe, self.said.append)


async def test_scenes_follow_one_another_and_faults_of_one_scene_meet() -> None:
    world = World()
    nemesis = world.nemesis()
    scene = frozenset({"a", "b"})
    await nemesis.strike_all(
        [
            Strike(0, "a", 1, 0, scene - {"a"}),
            Strike(0.01, "b", 2, 0, scene - {"b"}),
            Strike(0.02, "c", 3, 1),
            Strike(0.5, "d", 4, 2, rested=True),
        ]
    )
    assert world.together == {frozenset("a"), frozenset("ab"), frozenset("c"), frozenset("d")}
    assert [struck.strike.kind for struck in nemesis.timeline] == ["a", "b", "c", "d"]
    assert all(struck.healed_at is not None for struck in nemesis.timeline)
    assert nemesis.timeline[-1].recovered is not None
    assert not nemesis.violations
    assert counted(nemesis.timeline) == {"a": 1, "b": 1, "c": 1, "d": 1}


async def test_the_same_seed_strikes_in_the_same_way() -> None:
    told = []
    for _ in range(2):
        nemesis = World(0.0).nemesis()
        await nemesis.strike_all([Strike(0, "a", 17, 0)])
        told.append(nemesis.timeline[0].what)
    assert told[0] == told[1]


async def test_a_rested_fault_waits_for_the_recovery_and_another_cuts_it_short() -> None:
    world = World(0.0, recovery=0.2)
    nemesis = world.nemesis()
    await nemesis.strike_all([Strike(0, "a", 1, 0), Strike(0.05, "b", 2, 1), Strike(0.1, "c", 3, 2, rested=True)])
    a, b, c = nemesis.timeline
    assert a.recovered is None
    assert b.recovered is not None
    assert (c.struck_at - b.struck_at).total_seconds() > 0.2


async def test_what_never_heals_or_is_never_got_over_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECOVERY_SECONDS", 0.1)
    nemesis = World(0.0, recovery=60).nemesis()
    await nemesis.strike_all([Strike(0, "broken", 5, 0)])
    assert [violation.check for violation in nemesis.violations] == [
        "a fault heals, and what it struck is there again",
        "the system gets over every fault by itself",
    ]
    assert nemesis.violations[0].row["seed"] == 5


async def test_a_fault_that_cannot_strike_tries_again_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0.0)
    nemesis = world.nemesis()
    await nemesis.strike_all([Strike(0, "impossible", 1, 0)])
    assert nemesis.timeline[0].missed
    assert not counted(nemesis.timeline)
    assert not nemesis.violations
