"""What may never be, and was."""

from dataclasses import dataclass
from typing import Any, Self

from shared.contracts.base import JsonObject


@dataclass(frozen=True, slots=True)
class Violation:
    """A check that failed: its name, which is what should have been, and the thing that is not so."""

    check: str
    row: dict[str, Any]

    @classmethod
    def of_audit(cls, found: JsonObject, when: str = "") -> Self:
        """One of `Audit.violations()`; `when` says in front of its check under which circumstances it was found."""
        return cls(when + found["check"], {**found["row"], "service": found["service"], "expected": found["expected"]})

    def __str__(self) -> str:
        return f"{self.check}: {', '.join(f'{name} = {value}' for name, value in self.row.items())}"
