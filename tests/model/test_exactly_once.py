"""Every committed outgoing event is applied downstream exactly once, in order per key: searched, not argued.

The search is exhaustive up to the stated budget of faults: every interleaving of producer, two relays and two workers over
two partitions, with every fault at every step. Each guard that is taken away makes it find a counterexample.
"""

from collections import deque
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.protocol import Budget, Protocol, Worker, World, faults, steps, wrong


class Found(NamedTuple):
    """How much was searched, in how many states all was quiet, and the shortest way to something wrong."""

    states: int
    quiet: int
    wrong: str | None = None
    way: tuple[str, ...] = ()


def search(protocol: Protocol, budget: Budget, *, tell: str = "aab", workers: int = 2) -> Found:
    """All worlds that can be reached, nearest first, until one is wrong."""
    start = World(tuple(tell), budget, (Worker(),) * workers)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    waiting = deque([start])
    quiet_worlds = 0
    while waiting:
        world = waiting.popleft()
        ordinary = list(steps(world, protocol))
        quiet_worlds += not ordinary
        if what := wrong(world, quiet=not ordinary):
            return Found(len(came_from), quiet_worlds, what, _way(came_from, world))
        for label, after in (*ordinary, *faults(world, protocol)):
            if after not in came_from:
                came_from[after] = (world, label)
                waiting.append(after)
    return Found(len(came_from), quiet_worlds)


def _way(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    way = []
    while (step := came_from[world]) is not None:
        world, label = step
        way.append(label)
    return tuple(reversed(way))


SEARCHED = {
    "crashes": ("aab", Budget(crashes=2)),
    "rebalances": ("aab", Budget(rebalances=2)),
    "a crash and a rebalance": ("aab", Budget(crashes=1, rebalances=1)),
    "a crash and a second leader": ("aa", Budget(crashes=1, second_leaders=1)),
    "a late publication and a second leader": ("aa", Budget(late=1, second_leaders=1)),
    "a late publication and a rebalance": ("aa", Budget(late=1, rebalances=1)),
    "a refusal and a crash": ("aab", Budget(refusals=1, crashes=1)),
    "a restored database and a crash": ("aab", Budget(restores=1, crashes=1)),
}


@pytest.mark.parametrize(("tell", "budget"), SEARCHED.values(), ids=SEARCHED.keys())
def test_every_committed_event_is_applied_once_and_in_order(tell: str, budget: Budget) -> None:
    found = search(Protocol(), budget, tell=tell)
    assert found.wrong is None, found
    assert found.quiet, "the search must see how things end"
    print(f"{found.states} states, {found.quiet} of them quiet")


REMOVED = {
    "the inbox": (Protocol(inbox=False), Budget(crashes=1), "applied twice"),
    "the outbox in the transaction": (Protocol(outbox_in_transaction=False), Budget(crashes=1), "applied, but never committed"),
    "the relay's order": (Protocol(relay_in_order=False), Budget(refusals=1), "applied out of order"),
    # The partition rows would notice an acknowledgement that came too early, so they are taken away with it.
    "acknowledgement after commit": (Protocol(acknowledged_after_commit=False, partition_rows=False), Budget(crashes=1), "lost"),
    "the partition rows": (Protocol(partition_rows=False), Budget(restores=1), "lost"),
}


@pytest.mark.parametrize(("protocol", "budget", "what"), REMOVED.values(), ids=REMOVED.keys())
def test_without_a_guard_a_counterexample_is_found(protocol: Protocol, budget: Budget, what: str) -> None:
    found = search(protocol, budget, tell="aa")
    assert found.wrong == what
    print(*found.way, sep="\n")
    assert search(Protocol(), budget, tell="aa").wrong is None, "with the guard the same faults do no harm"


def test_an_acknowledgement_that_comes_too_early_is_noticed_by_the_partition_rows() -> None:
    """One guard behind another: the bookmark may be wrong, the database tells where to read on."""
    assert search(Protocol(acknowledged_after_commit=False), Budget(crashes=2), tell="aa").wrong is None


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.text("abc", min_size=3, max_size=8))
def test_long_runs_with_many_faults_end_well(random: Random, tell: str) -> None:
    """Beyond what can be searched exhaustively: more events, three workers, all kinds of faults, then time to settle."""
    budget = Budget(crashes=4, rebalances=4, refusals=2, late=2, second_leaders=2, restores=1)
    world = World(tuple(tell), budget, (Worker(),) * 3)
    protocol = Protocol()
    for faulty in [True] * 80 + [False] * 400:
        ordinary = list(steps(world, protocol))
        assert not wrong(world, quiet=not ordinary), world
        choices = ordinary + list(faults(world, protocol)) if faulty and random.random() < 0.4 else ordinary
        if not choices:
            if not faulty:
                break
            continue
        _, world = random.choice(choices)
    assert not list(steps(world, protocol)), "it settles once the faults end"
