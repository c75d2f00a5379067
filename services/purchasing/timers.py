"""What purchasing tells itself at a business time."""

from typing import Self

from services.purchasing.domain import LineKey
from shared.service import Timer


class WindowClosed(Timer):
    """The supplier's planned purchase orders have waited long enough for more lines. `key` = supplier."""


class SupplyOverdue(Timer):
    """The day on which units of a line were expected is over. `key` = `<purchase order>/<line>`."""

    @property
    def line_key(self) -> LineKey:
        """Purchase order and line number."""
        purchase_order, _, line = self.key.rpartition("/")
        return purchase_order, int(line)


class SupplyAgain(Timer):
    """After a restore inventory is to be told of a line as it is then, if it still is. `key` = `<purchase order>/<line>/<SKU>`."""

    @classmethod
    def of(cls, line_key: LineKey, sku: str) -> Self:
        """The timer of a line."""
        purchase_order, line = line_key
        return cls(key=f"{purchase_order}/{line}/{sku}")

    @property
    def line_key(self) -> tuple[LineKey, str]:
        """Purchase order and line number; the line's SKU."""
        purchase_order, line, sku = self.key.split("/")
        return (purchase_order, int(line)), sku
