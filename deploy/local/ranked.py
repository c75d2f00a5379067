"""Percentiles by nearest rank."""

from collections.abc import Sequence
from math import ceil


def ranked(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so large a share of them does not exceed; None of nothing."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)] if values else None
