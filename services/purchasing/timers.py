"""What purchasing tells itself at a business time."""

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
