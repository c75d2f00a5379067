"""Runs that failed once. The short form has them again, so that what was mended stays mended."""

from typing import NamedTuple


class Pin(NamedTuple):
    """A run as it failed, or the part of it that did, and what it found."""

    seed: int
    faults: int
    minutes: float
    kinds: tuple[str, ...]
    why: str


PINNED: tuple[Pin, ...] = (
    Pin(
        11, 4, 0.4, ("link_reset", "rolling_restart", "sessions_terminated", "two_brokers_down"),
        "a write to a connection that is being reset ended aiokafka's coordination; the consumer then consumed nothing and kept its"
        " partitions by its heartbeats for five minutes (tests/integration/runtime/test_life.py has it without chance)",
    ),
)  # fmt: skip
