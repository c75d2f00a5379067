"""When which fault strikes: a function of the seed, so that a run can be had again.

A run is a row of scenes: one fault alone, or two or three at once. What belongs to no scene together waits for the other's end: so
every kind is seen alone and in combinations, and between scenes there is often a rest in which recovery can be measured.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

CROWDED = 15
"""More faults a minute than this go into larger scenes, with fewer rests."""
ALONE_SHARE, ALONE_SHARE_CROWDED = 0.45, 0.15
"""So many of the scenes have a single fault."""
RESTED_SHARE, RESTED_SHARE_CROWDED = 0.5, 0.2
"""So many of the scenes begin when the system has got over the one before; the others strike it while it is down."""
LARGEST_SCENE = 3
TOGETHER_SECONDS = 3.0
"""Within so long the faults of one scene strike."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is to strike `at` seconds after the start, by its own chance of `seed`. `beside` names the kinds of its scene: they
    may be at work at the same time; any other must have healed first. `rested`: the system must have got over it, too."""

    at: float
    kind: str
    seed: int
    scene: int
    beside: frozenset[str] = frozenset()
    rested: bool = False


def schedule(seed: int, faults: int, minutes: float, kinds: Mapping[str, str]) -> list[Strike]:
    """So many faults over so many minutes, in the order of time. `kinds`: kind → what it works on (`services`, `kafka`, …); a scene
    never works on one thing twice. Every kind comes once before any comes twice, and so on. Raises ValueError without any kind."""
    if not kinds:
        raise ValueError("a schedule needs at least one kind of fault")
    chance = random.Random(f"schedule {seed}")  # noqa: S311  (to be had again, not to be kept secret)
    crowded = faults > CROWDED * minutes
    scenes = _scenes(chance, faults, kinds, ALONE_SHARE_CROWDED if crowded else ALONE_SHARE)
    apart = 60 * minutes / max(1, len(scenes))
    strikes = []
    for number, scene in enumerate(scenes):
        start = apart * (number + chance.uniform(0.0, 0.5))
        rested = chance.random() < (RESTED_SHARE_CROWDED if crowded else RESTED_SHARE)
        for kind in scene:
            at = start + (chance.uniform(0, TOGETHER_SECONDS) if len(scene) > 1 else 0)
            strikes.append(Strike(round(at, 2), kind, chance.getrandbits(32), number, frozenset(scene) - {kind}, rested))
    return sorted(strikes, key=lambda strike: (strike.scene, strike.at))


def _scenes(chance: random.Random, faults: int, kinds: Mapping[str, str], alone: float) -> list[list[str]]:
    """Deals the kinds, pack after shuffled pack, into scenes."""
    hand: list[str] = []
    scenes: list[list[str]] = []
    left = faults
    while left:
        size = 1 if chance.random() < alone else chance.randint(2, LARGEST_SCENE)
        scene: list[str] = []
        for _ in range(min(size, left)):
            if not hand:
                hand = chance.sample(sorted(kinds), len(kinds))
            works_on = {kinds[kind] for kind in scene}
            fitting = next((kind for kind in hand if kinds[kind] not in works_on), None)
            if fitting is None:
                break
            hand.remove(fitting)
            scene.append(fitting)
        left -= len(scene)
        scenes.append(scene)
    return scenes
