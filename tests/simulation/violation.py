"""What checks say when they do not hold."""

from collections.abc import Mapping, Sequence
from typing import Any


class ViolatedError(AssertionError):
    """`found`: the checks that do not hold, each with the rows that say so."""

    def __init__(self, found: Mapping[str, Sequence[Any]]) -> None:
        self.found = {check: [dict(row) if hasattr(row, "keys") else row for row in rows] for check, rows in found.items()}
        super().__init__(" | ".join(f"{check}: {_shown(rows)}" for check, rows in self.found.items()))


def _shown(rows: Sequence[Any]) -> str:
    return f"{'; '.join(str(row) for row in rows[:3])}{' …' if len(rows) > 3 else ''}"
