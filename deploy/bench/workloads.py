"""What is measured: opening stock and orders, the same for whoever is measured. Pure: the same arguments give the same orders."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import count, cycle

from deploy.local.publisher import Publication
from shared.contracts.base import Currency, Message
from shared.contracts.commerce import Customer, OrderedLine, OrderPlaced
from shared.contracts.suppliers import GoodsReceived, OfferChanged, ReceivedLine
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)
"""The business time of everything: the clock is held, so that no timer fires while something is measured."""
SKUS, LINES_PER_ORDER, MOST_UNITS = 1_000, 3, 5
SUPPLIERS = 10
LINES_PER_RECEIPT = 10
SOURCE = "/clients/bench"
_EURO = Currency("EUR")


class Name(StrEnum):
    """The workloads. `steady` is `uniform` at half of the rate that `uniform` reached."""

    ONLINE_RETAIL = "online_retail"
    UNIFORM = "uniform"
    HOT_SKU = "hot_sku"
    RECEIPT_STORM = "receipt_storm"
    STEADY = "steady"


@dataclass(frozen=True, slots=True)
class Case:
    """Orders, and the units of each SKU that are on hand before them."""

    stock: Mapping[str, int]
    orders: Sequence[OrderPlaced]

    @property
    def lines(self) -> int:
        """Lines of all orders."""
        return sum(len(order.lines) for order in self.orders)


def case(name: Name, lines: int, sold: Sequence[OrderPlaced] = ()) -> Case:
    """A workload of so many lines, rounded up to whole orders. `sold` = the orders that `online_retail` repeats."""
    match name:
        case Name.ONLINE_RETAIL:
            return _half_in_stock(_repeated(sold, lines))
        case Name.HOT_SKU:
            return _half_in_stock(_invented(lines, skus=1, lines_per_order=1))
        case Name.RECEIPT_STORM:
            return Case(dict.fromkeys(map(_sku, range(SKUS)), 0), _invented(lines, SKUS, LINES_PER_ORDER))
        case _:
            return _half_in_stock(_invented(lines, SKUS, LINES_PER_ORDER))


def definitions(stock: Mapping[str, int]) -> Iterator[Publication]:
    """What must be known before the orders: each SKU, its opening stock, and a supplier from whom any quantity may be bought."""
    for number, (sku, on_hand) in enumerate(stock.items()):
        supplier = f"supplier-{number % SUPPLIERS + 1}"
        for message in (
            SkuDefined(sku=sku, backorder=BackorderPolicy.ALLOW),
            StockCounted(count=f"opening-{sku}", sku=sku, on_hand=on_hand, counted_at=BEGIN),
            OfferChanged(supplier=supplier, sku=sku, price=Decimal(2), currency=_EURO, lead_days=7),
        ):
            yield Publication(BEGIN, message, f"{type(message).__name__}-{sku}", SOURCE)


def receipts(purchase_orders: Iterable[tuple[str, Sequence[ReceivedLine]]]) -> Iterator[GoodsReceived]:
    """All that was ordered, in receipts of some lines each."""
    for purchase_order, lines in purchase_orders:
        for start in range(0, len(lines), LINES_PER_RECEIPT):
            yield GoodsReceived(
                receipt=f"{purchase_order}-{start}", purchase_order=purchase_order, received_at=BEGIN,
                lines=tuple(lines[start : start + LINES_PER_RECEIPT]),
            )  # fmt: skip


def demand(orders: Iterable[OrderPlaced]) -> dict[str, int]:
    """Units ordered of each SKU."""
    units: Counter[str] = Counter()
    for order in orders:
        for line in order.lines:
            units[line.sku] += line.quantity
    return dict(units)


def identified(messages: Iterable[OrderPlaced | GoodsReceived]) -> Iterator[tuple[str, int, Message]]:
    """Messages as they are published: id, how many lines each has, and itself."""
    for message in messages:
        yield (message.order if isinstance(message, OrderPlaced) else message.receipt), len(message.lines), message


def _sku(number: int) -> str:
    return f"sku-{number:04}"


def _half_in_stock(orders: Sequence[OrderPlaced]) -> Case:
    """Half of the units ordered of each SKU are there: the first come are served, the others wait."""
    return Case({sku: units // 2 for sku, units in sorted(demand(orders).items())}, orders)


def _invented(lines: int, skus: int, lines_per_order: int) -> list[OrderPlaced]:
    """Orders of so many lines each; their SKUs differ, every SKU is as likely as any other."""
    dice = random.Random(7)  # noqa: S311  (the same orders every time)
    customers = [Customer(id=f"customer-{number}", name="Ann", email=f"ann-{number}@example.com") for number in range(1_000)]
    return [
        OrderPlaced(
            order=f"order-{number}",
            placed_at=BEGIN,
            customer=dice.choice(customers),
            currency=_EURO,
            lines=tuple(
                OrderedLine(line=line, sku=_sku(sku), quantity=dice.randint(1, MOST_UNITS), unit_price=Decimal(3))
                for line, sku in enumerate(dice.sample(range(skus), lines_per_order), start=1)
            ),
        )
        for number in range(-(-lines // lines_per_order))
    ]


def _repeated(sold: Sequence[OrderPlaced], lines: int) -> list[OrderPlaced]:
    """The orders again and again under new names, until there are so many lines."""
    orders: list[OrderPlaced] = []
    for number, order in zip(count(), cycle(sold)):
        if lines <= 0:
            break
        orders.append(order.model_copy(update={"order": f"{order.order}.{number // len(sold)}", "placed_at": BEGIN}))
        lines -= len(order.lines)
    return orders
