"""The shop's business while a system is under load: an assortment, a third of which is always bought for those who wait, and orders
without end. Pure: a number gives the same order in any process."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from deploy.local.choice import fraction, one_of
from deploy.local.publisher import Publication
from deploy.local.suppliers import Rates
from shared.contracts.base import Currency
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

BEGIN = datetime(2026, 3, 2, 7, tzinfo=UTC)
SKUS = 1_000
SCARCE_EVERY = 3
"""Of every third SKU there is nothing: each of its lines waits, and is bought for."""
RATES = Rates()
CANCELS_EVERY = 50
SHOP = "/clients/shop/load"
_PLENTY = 10_000_000
_SUPPLIERS, _CUSTOMERS = 20, 10_000
_LINES, _QUANTITIES, _PACKS, _LEAD_DAYS = (1, 2, 3, 4, 5), (1, 1, 2, 3, 5), (1, 4, 10), (1, 2, 3, 5)
_EURO = Currency("EUR")


def sku(number: int) -> str:
    """An article's name."""
    return f"sku-{number:04}"


def scarce(number: int) -> bool:
    """Whether there is never any stock of an article but what was bought for those who wait."""
    return number % SCARCE_EVERY == 0


def definitions() -> Iterator[Publication]:
    """What must be known before the orders: each SKU, its opening stock, and of those that are bought two suppliers."""
    for number in range(SKUS):
        name = sku(number)
        on_hand = 0 if scarce(number) else _PLENTY
        yield Publication(BEGIN, SkuDefined(sku=name, backorder=BackorderPolicy.ALLOW), f"sku-{name}", "/clients/catalogue")
        yield Publication(BEGIN, StockCounted(count=f"opening-{name}", sku=name, on_hand=on_hand, counted_at=BEGIN), name, "/clients/stock")
        for place in range(2 if scarce(number) else 0):
            supplier = f"supplier-{(number // SCARCE_EVERY + place) % _SUPPLIERS}"
            pack = one_of(_PACKS, "pack", name)
            offer = OfferChanged(
                supplier=supplier, sku=name, price=Decimal(4 + place), currency=_EURO, pack=pack, minimum=pack,
                lead_days=one_of(_LEAD_DAYS, "lead", supplier),
            )  # fmt: skip
            yield Publication(BEGIN, offer, f"{supplier}-{name}", f"/clients/{supplier}")


def order_id(number: int) -> str:
    """An order's name."""
    return f"load-{number:08}"


def said(number: int, at: datetime) -> Sequence[Publication]:
    """An order, placed at this business time; of every fiftieth the customer thinks better at once, as far as its first line goes."""
    name = order_id(number)
    first = int(SKUS * fraction(name))
    customer = number % _CUSTOMERS
    lines = tuple(
        # The step and the number of SKUs have no divisor in common: the SKUs of an order differ.
        OrderedLine(
            line=line, sku=sku((first + 7 * line * (1 + number % 5)) % SKUS), quantity=_QUANTITIES[(number + line) % 5],
            unit_price=Decimal("9.90"),
        )
        for line in range(1, 1 + lines_of(number))
    )  # fmt: skip
    order = OrderPlaced(
        order=name, placed_at=at, currency=_EURO, lines=lines,
        customer=Customer(id=f"customer-{customer}", name="Zoë", email=f"zoe-{customer}@example.com"),
    )  # fmt: skip
    if number % CANCELS_EVERY:
        return (Publication(at, order, name, SHOP),)
    wish = OrderCancelRequested(request="never-mind", order=name, line=1, requested_at=at)
    return Publication(at, order, name, SHOP), Publication(at, wish, f"{name}/never-mind", SHOP)


def lines_of(number: int) -> int:
    """How many lines an order has: three, taken over five of them."""
    return _LINES[number % len(_LINES)]
