"""The Northwind story: the first forty orders of the sample, its stock, its suppliers, and five things that go wrong on purpose.

Prices that suppliers ask and hours of the day are ours, the rest is the data's; `deploy/local/data/README.md` names the source.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from deploy.local.publisher import Publication
from deploy.local.story import Story
from deploy.local.suppliers import Conduct
from shared.contracts.base import Currency
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.purchasing import PurchaseOrderIssued
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

DATA = Path(__file__).parent / "data" / "northwind"
LEAD_DAYS, PACK = 7, 10
_CURRENCY = Currency("USD")
_SHOP, _WAREHOUSE, _CATALOGUE = "/clients/shop/northwind", "/clients/warehouse/stock", "/clients/catalogue"

SECOND_SUPPLIER = {"74": "6"}
"""Product → a supplier that is asked when the first one rejects: Mayumi's makes tofu, too."""
CANCELLED = ("10263", 1, datetime(1996, 7, 24, 15, tzinfo=UTC))
"""Ernst Handel does not want to wait for 60 Pavlovas: what was bought for them serves others later."""
CONDUCT: Mapping[str, Conduct] = {
    "gai-paturage-1": Conduct(slip_days=4),
    "tokyo-traders-1": Conduct(rejected=frozenset({1})),
    "g-day-mate-1": Conduct(short=frozenset({1})),
    "formaggi-fortini-s-r-l-1": Conduct(repeated=True, told_again=True),
}
"""Purchase order → what its supplier makes of it; all others are answered after two hours and delivered on the day."""


def story() -> Story:
    """Forty orders of 49 days, 107 lines; about a third is backordered, 15 ask for what is discontinued and not in stock."""
    orders = list(_orders())
    events = [Publication(order.placed_at, order, order.order, _SHOP) for order in orders]
    order_id, line, at = CANCELLED
    wish = OrderCancelRequested(request=f"{order_id}-cancel", order=order_id, line=line, reason="found it elsewhere", requested_at=at)
    events.append(Publication(at, wish, wish.request, _SHOP))
    events.sort(key=lambda event: event.time)
    start = events[0].time - timedelta(hours=1)
    return Story(start, list(_definitions(start)), events, behaviour)


def behaviour(order: PurchaseOrderIssued) -> Conduct:
    """What the script says of a purchase order."""
    return CONDUCT.get(order.purchase_order, Conduct())


def slug(name: str) -> str:
    """A name as an id: `Gai pâturage` → `gai-paturage`."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _read(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _skus() -> dict[str, str]:
    """Product id → SKU."""
    return {product["product_id"]: f"{product['product_id']}-{slug(product['product_name'])}" for product in _read("products")}


def _orders() -> Iterator[OrderPlaced]:
    """The orders; the sample knows the day, we let them come every half hour from nine o'clock (UTC)."""
    skus = _skus()
    names = {customer["customer_id"]: customer["company_name"] for customer in _read("customers")}
    details: dict[str, list[dict[str, str]]] = {}
    for detail in _read("order_details"):
        details.setdefault(detail["order_id"], []).append(detail)
    today, hour = "", timedelta()
    for order in _read("orders"):
        hour = hour + timedelta(minutes=30) if order["order_date"] == today else timedelta(hours=9)
        today = order["order_date"]
        customer = order["customer_id"]
        yield OrderPlaced(
            order=order["order_id"],
            placed_at=datetime.fromisoformat(today).replace(tzinfo=UTC) + hour,
            customer=Customer(id=customer, name=names[customer], email=f"{customer.lower()}@example.com"),
            currency=_CURRENCY,
            lines=tuple(
                OrderedLine(
                    line=number, sku=skus[detail["product_id"]], quantity=int(detail["quantity"]), unit_price=Decimal(detail["unit_price"])
                )
                for number, detail in enumerate(details[order["order_id"]], start=1)
            ),
        )


def _definitions(at: datetime) -> Iterator[Publication]:
    skus = _skus()
    suppliers = {supplier["supplier_id"]: slug(supplier["company_name"]) for supplier in _read("suppliers")}
    for product in _read("products"):
        sku = skus[product["product_id"]]
        policy = BackorderPolicy.DENY if product["discontinued"] == "1" else BackorderPolicy.ALLOW
        defined = SkuDefined(sku=sku, description=product["product_name"], backorder=policy)
        yield Publication(at, defined, f"sku-{sku}", _CATALOGUE)
        counted = StockCounted(count=f"opening-{sku}", sku=sku, on_hand=int(product["units_in_stock"]), counted_at=at)
        yield Publication(at, counted, counted.count, _WAREHOUSE)
        asked = {product["supplier_id"]: Decimal("0.6")}
        if second := SECOND_SUPPLIER.get(product["product_id"]):
            asked[second] = Decimal("0.7")
        for supplier_id, share in asked.items():
            price = round(Decimal(product["unit_price"]) * share, 4)
            offer = OfferChanged(
                supplier=suppliers[supplier_id], sku=sku, price=price, currency=_CURRENCY, pack=PACK, minimum=PACK, lead_days=LEAD_DAYS
            )
            yield Publication(at, offer, f"offer-{offer.supplier}-{sku}", f"/clients/supplier/{offer.supplier}")
