"""Runs that failed once. The short form has them again, so that what was mended stays mended."""

from typing import NamedTuple


class Pin(NamedTuple):
    """A run as it failed, and what it found."""

    seed: int
    faults: int
    minutes: float
    kinds: tuple[str, ...]
    why: str


PINNED: tuple[Pin, ...] = ()
