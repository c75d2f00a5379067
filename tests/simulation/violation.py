"""What a check says when it does not hold."""

from collections.abc import Iterable
from typing import Any


class ViolatedError(AssertionError):
    """The check that does not hold, and the rows that say so."""

    def __init__(self, check: str, rows: Iterable[Any]) -> None:
        self.check, self.rows = check, [dict(row) if hasattr(row, "keys") else row for row in rows]
        super().__init__(f"{check}: {'; '.join(str(row) for row in self.rows[:3])}{' …' if len(self.rows) > 3 else ''}")
