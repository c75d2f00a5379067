"""Where worlds are simulated: an event loop and databases that all the seeds of a process share."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvloop

from shared.service import Service
from tests.simulation.databases import Databases, databases
from tests.simulation.simulate import Run, simulate
from tests.simulation.steps import Mixture, mixture
from tests.simulation.world import DECLARED, World


@dataclass(frozen=True)
class Laboratory:
    """See the module."""

    databases: Databases
    _runner: asyncio.Runner

    def simulate(
        self,
        seed: int,
        services: tuple[Service[Any], ...] = DECLARED,
        mixture: Callable[[World], Mixture] = mixture,
        *,
        watched: bool = False,
    ) -> Run:
        """A seed from beginning to end; see `simulate`."""
        return self._runner.run(simulate(seed, self.databases, services, mixture, watched=watched))

    def explained(self, run: Run, mixture: Callable[[World], Mixture] = mixture) -> str:
        """The report of a run that failed. What a service can see by itself is looked for again after each step: for the first."""
        again = self.simulate(run.seed, mixture=mixture, watched=True)
        return (again if again.violated else run).report()


@contextmanager
def laboratory(database_url: str) -> Iterator[Laboratory]:
    """Opens one on the database server at this URL."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = databases(database_url)
        opened = runner.run(made.__aenter__())
        try:
            yield Laboratory(opened, runner)
        finally:
            runner.run(made.__aexit__(None, None, None))


def tell(
    database_url: str, seeds: Iterable[int], mixture: Callable[[World], Mixture], *, digests: bool = False, timeline: bool = False
) -> list[int]:
    """Prints the reports of the seeds that violate something, and answers which; of all of them what was asked for."""
    violated = []
    with laboratory(database_url) as lab:
        for seed in seeds:
            run = lab.simulate(seed, mixture=mixture)
            if digests:
                print(run.digest, flush=True)
            if timeline:
                print(run.report(), flush=True)
            if run.violated is not None:
                violated.append(seed)
                print(lab.explained(run, mixture), file=sys.stderr, flush=True)
    return violated
