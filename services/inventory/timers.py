"""What inventory tells itself, to be done once a restored database has read everything again."""

from typing import Self

from services.inventory.domain import LineKey
from shared.service import Timer


class StockAgain(Timer):
    """The SKU `key` is to be served, promised and told of again, as it is by then."""


class AnswerDue(Timer):
    """A claim may not have been answered. `key` = `<order>/<line>`."""

    @classmethod
    def of(cls, line: LineKey) -> Self:
        """The timer of a line."""
        return cls(key=f"{line[0]}/{line[1]}")

    @property
    def line_key(self) -> LineKey:
        """(order, line)."""
        order, _, line = self.key.rpartition("/")
        return order, int(line)
