"""How a mutant is made, and how it is hunted. Everything is changed from here, while a test runs: the services have no switch."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from unittest import mock

from shared import invariants
from shared.service import Applicable, Handler
from tests.simulation.databases import Databases
from tests.simulation.laboratory import Laboratory
from tests.simulation.steps import Mixture, mixture
from tests.simulation.world import DECLARED, World


class Surgery(ExitStack):
    """What a mutant changes, until the test is over."""

    def __init__(self, databases: Databases) -> None:
        super().__init__()
        self.databases = databases
        self.services = DECLARED

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Puts something else in the place of an attribute."""
        self.enter_context(mock.patch.object(owner, name, value))

    def change(self, service: str, part: str, made_of: Callable[[Any], Any]) -> None:
        """Puts another part into a service, made of the one that is there."""
        self.services = tuple(
            replace(each, **{part: made_of(getattr(each, part))}) if each.name == service else each for each in self.services
        )

    def handle(self, service: str, kind: type[Applicable], made_of: Callable[[Handler[Any]], Handler[Any]]) -> None:
        """Puts another handler into a service, made of the one that is there."""
        self.change(service, "routes", lambda routes: {**routes, kind: replace(routes[kind], handler=made_of(routes[kind].handler))})


def unchecked(operate: Callable[[Surgery], None]) -> Callable[[Surgery], None]:
    """The mutant, without the invariants that each transaction is held to before it is saved: they would park what is wrong."""

    def operate_unseen(surgery: Surgery) -> None:
        surgery.put(invariants, "check", lambda *_: None)
        operate(surgery)

    return operate_unseen


@dataclass(frozen=True)
class Mutant:
    """`breaks` names the check that must notice it, `without` the guards behind that are switched off with it, and
    `mixture` the trouble in which it is hunted."""

    name: str
    operate: Callable[[Surgery], None]
    breaks: str
    without: str = ""
    mixture: Callable[[World], Mixture] = mixture


class Found(NamedTuple):
    """A mutant was found after so many seeds and steps."""

    seeds: int
    steps: int


def hunt(lab: Laboratory, mutant: Mutant, seeds: int) -> Found | None:
    """Simulates the mutant, seed by seed, until the check that it names does not hold."""
    steps = 0
    with Surgery(lab.databases) as surgery:
        mutant.operate(surgery)
        for seed in range(seeds):
            run = lab.simulate(seed, surgery.services, mutant.mixture)
            steps += len(run.world.timeline)
            if run.violated is not None and mutant.breaks in run.violated.found:
                return Found(seed + 1, steps)
    return None
