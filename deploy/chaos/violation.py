"""What may never be, and was."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    """A check that failed: its name, which is what should have been, and the thing that is not so."""

    check: str
    row: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.check}: {', '.join(f'{name} = {value}' for name, value in self.row.items())}"
