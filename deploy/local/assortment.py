"""What Online Retail does not tell, chosen by hash: opening stock, suppliers and their offers. And the whole as a story."""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from deploy.local.choice import fraction, one_of
from deploy.local.publisher import Publication
from deploy.local.retail import CURRENCY, Sales
from deploy.local.story import Story
from deploy.local.suppliers import Rates, at_rates
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

SHOP = "/clients/shop/online-retail"
_WAREHOUSE = "/clients/warehouse/stock"
_CATALOGUE = "/clients/catalogue"
_COST, _COST_ELSEWHERE = Decimal("0.5"), Decimal("0.6")
"""Shares of the sales price: purchasing buys at the first supplier and turns to the second when that one declines."""


@dataclass(frozen=True, slots=True)
class Terms:
    """`stock` = how many tenths of the SKUs begin with nothing, with half of the slice's demand, with all of it; `packs` and `lead_days`
    (shortest, longest) = what suppliers offer; `seed` varies who offers what."""

    stock: tuple[int, int, int] = (2, 3, 5)
    packs: tuple[int, ...] = (1, 6, 12)
    lead_days: tuple[int, int] = (3, 12)
    suppliers: int = 12
    rates: Rates = field(default_factory=Rates)


def opening_stock(sku: str, demand: int, stock: tuple[int, int, int]) -> int:
    """Units on hand at the start, by the SKU's place in ten classes."""
    none, half, _ = stock
    place = zlib.crc32(sku.encode()) % 10
    if place < none:
        return 0
    return demand // 2 if place < none + half else demand


def suppliers_of(sku: str, terms: Terms) -> tuple[str, str]:
    """The two suppliers of a SKU: the one to buy from, and the one that never declines."""
    first = int(fraction(terms.rates.seed, "first supplier", sku) * terms.suppliers)
    second = (first + 1 + int(fraction(terms.rates.seed, "second supplier", sku) * (terms.suppliers - 1))) % terms.suppliers
    return f"supplier-{first + 1:02}", f"supplier-{second + 1:02}"


def story(sales: Sales, terms: Terms) -> Story:
    """The slice as a story: definitions an hour before the first order, then orders and cancellations as they came."""
    events = [Publication(order.placed_at, order, order.order, SHOP) for order in sales.orders]
    events += [Publication(wish.requested_at, wish, wish.request, SHOP) for wish in sales.cancellations]
    events.sort(key=lambda event: event.time)
    start = events[0].time - timedelta(hours=1)
    last = {sku: suppliers_of(sku, terms)[1] for sku in sales.descriptions}
    return Story(start, list(_definitions(sales, terms, start)), events, at_rates(terms.rates, last), sales.skipped)


def _definitions(sales: Sales, terms: Terms, at: datetime) -> Iterator[Publication]:
    demand, prices = _demand(sales)
    for sku, description in sales.descriptions.items():
        defined = SkuDefined(sku=sku, description=description, backorder=BackorderPolicy.ALLOW)
        yield Publication(at, defined, f"sku-{sku}", _CATALOGUE)
        counted = StockCounted(count=f"opening-{sku}", sku=sku, on_hand=opening_stock(sku, demand[sku], terms.stock), counted_at=at)
        yield Publication(at, counted, counted.count, _WAREHOUSE)
        for supplier, cost in zip(suppliers_of(sku, terms), (_COST, _COST_ELSEWHERE), strict=True):
            offer = _offer(supplier, sku, prices[sku] * cost, terms)
            yield Publication(at, offer, f"offer-{supplier}-{sku}", f"/clients/supplier/{supplier}")


def _offer(supplier: str, sku: str, price: Decimal, terms: Terms) -> OfferChanged:
    shortest, longest = terms.lead_days
    pack = one_of(terms.packs, terms.rates.seed, "pack", sku)
    lead = shortest + int(fraction(terms.rates.seed, "lead", supplier) * (longest - shortest + 1))
    return OfferChanged(supplier=supplier, sku=sku, price=round(price, 4), currency=CURRENCY, pack=pack, minimum=pack, lead_days=lead)


def _demand(sales: Sales) -> tuple[Counter[str], Mapping[str, Decimal]]:
    """Units ordered per SKU in the slice, and each SKU's first price."""
    demand: Counter[str] = Counter()
    prices: dict[str, Decimal] = {}
    for order in sales.orders:
        for line in order.lines:
            demand[line.sku] += line.quantity
            prices.setdefault(line.sku, line.unit_price)
    return demand, prices
