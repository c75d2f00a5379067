"""The same input without faults and without hostility: what the run has to be equal to."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from deploy.chaos import demand
from deploy.chaos.doors import Acceptance
from deploy.chaos.evidence import Outcome, lines
from deploy.chaos.violation import Violation
from deploy.chaos.witness import LineKey
from deploy.local.home import Home
from deploy.local.publisher import Publication
from deploy.local.stage import fresh_system
from deploy.local.story import Story, play
from deploy.local.summary import Tally
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import SkuDefined, StockCounted

_INPUT = (SkuDefined, StockCounted, OfferChanged, OrderPlaced, OrderCancelRequested)
"""What does not follow from what the system did: suppliers and warehouse answer each run anew."""


def meant(accepted: Iterable[Acceptance]) -> list[Publication]:
    """What was accepted, each meaning once, without what had to be refused; in the order of its time."""
    found: dict[str, Publication] = {}
    for acceptance in accepted:
        said = acceptance.said
        if isinstance(said.message, _INPUT) and not acceptance.expects:
            meaning = said.message.model_dump_json()
            known = found.get(meaning)
            if known is None or said.time < known.time:
                found[meaning] = Publication(said.time, said.message, said.id, said.source)
    return sorted(found.values(), key=lambda said: said.time)


def calm(home: Home, said: Sequence[Publication], seed: int, say: Callable[[str], None]) -> tuple[dict[LineKey, Outcome], list[Violation]]:
    """Plays it into a fresh system in this home; answers what became of every line, and what the audit found."""
    story = story_of(said, seed)
    with fresh_system(home, story.start, demand.ZONE) as settings:
        say(f"  {len(story.events)} messages to play")
        run = asyncio.run(play(settings, story, Tally()))
        say(f"  all has come to its end after {run.summary.seconds:.1f} s, {run.summary.lines} lines")
        outcomes = asyncio.run(lines(settings))
    return outcomes, [Violation.of_audit(found, "in the calm run: ") for found in run.audit.violations()]


def story_of(said: Sequence[Publication], seed: int) -> Story:
    """As a story of its own: what was known at the beginning, and what came later."""
    start: datetime = demand.START
    definitions, events = [each for each in said if each.time <= start], [each for each in said if each.time > start]
    return Story(start, definitions, events, demand.story(seed, days=0).behaviour)
