"""The working set of one transaction: the locked rows that its messages touch, as they were loaded and as they are now."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Generic, TypeVar

from services.purchasing.domain import Acknowledgement, Line, LineKey, Offer, PurchaseOrder, Receipt, Shortfall, Sku, Status, Supplier

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Rows(Generic[K, R]):
    """Rows of one table by key, and by a group that they are asked for; knows what has changed since they were loaded."""

    def __init__(self, key: Callable[[R], K], loaded: Iterable[R], group: Callable[[R], str] = lambda _: "") -> None:
        self._key, self._group = key, group
        self._now: dict[K, R] = {}
        self._groups: defaultdict[str, dict[K, None]] = defaultdict(dict)
        for row in loaded:
            self.put(row)
        self.loaded = dict(self._now)
        self._corrected: set[K] = set()

    def __getitem__(self, key: K) -> R:
        return self._now[key]

    def get(self, key: K) -> R | None:
        """The row, or None."""
        return self._now.get(key)

    def of(self, group: str) -> list[R]:
        """The group's rows, in the order in which they came."""
        return [self._now[key] for key in self._groups.get(group, ())]

    def all(self) -> list[R]:
        """Every row."""
        return list(self._now.values())

    def put(self, row: R) -> None:
        """Adds or replaces a row."""
        key = self._key(row)
        self._now[key] = row
        self._groups[self._group(row)][key] = None

    def correct(self, row: R) -> None:
        """Replaces a row as if it had always been so."""
        self.put(row)
        self.loaded[self._key(row)] = row
        self._corrected.add(self._key(row))

    def drop(self, row: R) -> None:
        """Removes a row."""
        key = self._key(row)
        del self._now[key], self._groups[self._group(row)][key]

    def changed(self) -> list[R]:
        """Rows that are new or differ from what was loaded."""
        return [row for key, row in self._now.items() if (was := self.loaded.get(key)) is not row and was != row]

    def to_write(self) -> list[R]:
        """Rows that have changed or been corrected."""
        return [*self.changed(), *(row for key in self._corrected if (row := self._now.get(key)) is not None and row is self.loaded[key])]

    def dropped(self) -> list[K]:
        """Keys of rows that were loaded and are no more."""
        return [key for key in self.loaded if key not in self._now]


@dataclass(slots=True)
class State:
    """See the module. `touched` SKUs are to be planned and `causes` lines to be told of, each with the message behind it; `again`
    are lines, each with its SKU, of which inventory is told though nothing has changed."""

    skus: Rows[str, Sku]
    offers: Rows[tuple[str, str], Offer]
    suppliers: Rows[str, Supplier]
    orders: Rows[str, PurchaseOrder]
    lines: Rows[LineKey, Line]
    shortfalls: Rows[str, Shortfall]
    receipts: Rows[str, Receipt]
    acknowledgements: Rows[tuple[str, str], Acknowledgement]
    touched: dict[str, str] = field(default_factory=dict)
    causes: dict[LineKey, str] = field(default_factory=dict)
    again: dict[LineKey, str] = field(default_factory=dict)

    def change(self, line: Line, cause: str) -> None:
        """Puts a line. The only place where a SKU's `committed` changes, so that it is the sum over its lines by construction."""
        before = self.lines.get(line.key)
        self.lines.put(line)
        self.causes[line.key] = cause
        delta = line.committed - (before.committed if before else 0)
        if delta:
            sku = self.skus[line.sku]
            self.skus.put(replace(sku, committed=sku.committed + delta))
            self.touched[line.sku] = cause

    def lines_on(self, purchase_order: str) -> list[Line]:
        """The order's lines that are at hand, by number."""
        order = self.orders.get(purchase_order)
        numbers = range(1, order.last_line + 1 if order else 1)
        return [line for number in numbers if (line := self.lines.get((purchase_order, number))) is not None]

    def planned_orders(self, supplier: str) -> list[PurchaseOrder]:
        """The supplier's orders that wait for their window to close, oldest first."""
        return sorted((order for order in self.orders.of(supplier) if order.status is Status.PLANNED), key=_number)

    def planned_lines(self, sku: str) -> list[Line]:
        """The SKU's lines on planned orders, oldest first."""
        planned = (line for line in self.lines.of(sku) if self.orders[line.purchase_order].status is Status.PLANNED)
        return sorted(planned, key=attrgetter("shortage_version", "attempt"))

    def withdraw(self, supplier: str, sku: str, cause: str) -> None:
        """Takes planned units of a SKU back from a supplier whose terms changed or who declined: they are planned anew."""
        for line in self.planned_lines(sku):
            if self.orders[line.purchase_order].supplier == supplier:
                self.change(replace(line, ordered=0), cause)


def _number(order: PurchaseOrder) -> int:
    return int(order.purchase_order.rpartition("-")[2])


def working_set(
    *,
    skus: Iterable[Sku] = (),
    offers: Iterable[Offer] = (),
    suppliers: Iterable[Supplier] = (),
    orders: Iterable[PurchaseOrder] = (),
    lines: Iterable[Line] = (),
    shortfalls: Iterable[Shortfall] = (),
    receipts: Iterable[Receipt] = (),
    acknowledgements: Iterable[Acknowledgement] = (),
) -> State:
    """The state made of these rows."""
    return State(
        skus=Rows(attrgetter("sku"), skus),
        offers=Rows(attrgetter("supplier", "sku"), offers, group=attrgetter("sku")),
        suppliers=Rows(attrgetter("supplier"), suppliers),
        orders=Rows(attrgetter("purchase_order"), orders, group=attrgetter("supplier")),
        lines=Rows(attrgetter("key"), lines, group=attrgetter("sku")),
        shortfalls=Rows(attrgetter("sku"), shortfalls),
        receipts=Rows(attrgetter("receipt"), receipts),
        acknowledgements=Rows(attrgetter("supplier", "acknowledgement"), acknowledgements),
    )
