"""What the world wants in a run: SKUs with scarce stock, suppliers with terms that change, orders and cancellations day after day.

Pure functions of the seed. Nothing here is hostile yet (`hostile.py` sees to that), but much of it is awkward: SKUs that may not
wait, SKUs that nobody has heard of, lines of one SKU twice in an order, cancellations at the very time at which parcels leave.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from deploy.local.assortment import Terms, suppliers_of
from deploy.local.choice import fraction, one_of
from deploy.local.publisher import Publication
from deploy.local.simulator import SHIPS_AFTER
from deploy.local.story import Story
from deploy.local.suppliers import Rates, at_rates
from shared.contracts.base import Currency
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

START = datetime(2026, 3, 2, 7, tzinfo=UTC)
ZONE = "Europe/London"
"""The clocks go forward in the night of 29 March, in the midst of a run."""
SKUS = 36
ORDERS_A_DAY = 40
SHOP = "/clients/shop/hostile"
CATALOGUE = "/clients/catalogue"
COUNTING = "/clients/warehouse/stock"
_CURRENCY = Currency("EUR")
_STOCK = (0, 0, 30, 200, 100_000)
_QUANTITIES = (1, 1, 2, 3, 7, 12)
_LINES = (1, 1, 2, 3, 5)
_ZONES = ("Europe/London", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")


def terms(seed: int) -> Terms:
    """How suppliers behave: few, quick, unreliable."""
    rates = Rates(slip=0.2, reject=0.15, short=0.2, twice=0.2, seed=seed)
    return Terms(packs=(1, 4, 10), lead_days=(1, 5), suppliers=6, rates=rates)


def skus() -> list[str]:
    """The assortment."""
    return [f"sku-{number:02}" for number in range(SKUS)]


def may_wait(sku: str) -> bool:
    """Whether a customer may order it when it is not in stock."""
    return fraction("policy", sku) > 0.15


def story(seed: int, days: int) -> Story:
    """So many business days of it, in the order of time."""
    said = terms(seed)
    last = {sku: suppliers_of(sku, said)[1] for sku in skus()}
    events = [event for day in range(days) for event in _day(seed, day)]
    return Story(START, list(_definitions(said)), sorted(events, key=lambda event: event.time), at_rates(said.rates, last))


def _definitions(said: Terms) -> Iterator[Publication]:
    for sku in skus():
        policy = BackorderPolicy.ALLOW if may_wait(sku) else BackorderPolicy.DENY
        yield Publication(START, SkuDefined(sku=sku, description=f"Article {sku}", backorder=policy), f"sku-{sku}", CATALOGUE)
        counted = StockCounted(count=f"opening-{sku}", sku=sku, on_hand=one_of(_STOCK, said.rates.seed, "stock", sku), counted_at=START)
        yield Publication(START, counted, counted.count, COUNTING)
        for place, supplier in enumerate(suppliers_of(sku, said)):
            yield _offer(START, said, supplier, sku, "opening", Decimal(4 + place))


def _offer(at: datetime, said: Terms, supplier: str, sku: str, number: object, price: Decimal) -> Publication:
    shortest, longest = said.lead_days
    seed = said.rates.seed
    pack = one_of(said.packs, seed, "pack", sku, number)
    lead = shortest + int(fraction(seed, "lead", supplier, number) * (longest - shortest + 1))
    offer = OfferChanged(supplier=supplier, sku=sku, price=price, currency=_CURRENCY, pack=pack, minimum=pack, lead_days=lead)
    return Publication(at, offer, f"offer-{supplier}-{sku}-{number}", f"/clients/supplier/{supplier}")


def _day(seed: int, day: int) -> Iterator[Publication]:
    """One day's orders with the cancellations that will come of them, and new terms of some suppliers."""
    begin = START + timedelta(days=day)
    for number in range(ORDERS_A_DAY):
        name = f"O-{day:03}-{number:03}"
        at = begin + timedelta(days=1) * fraction(seed, "moment", name)
        order = _order(seed, name, at)
        yield Publication(at, order, name, SHOP)
        yield from _cancellations(seed, order)
    said = terms(seed)
    for sku in skus():
        if fraction(seed, "new terms", sku, day) < 0.02:
            supplier = one_of(suppliers_of(sku, said), seed, "whose terms", sku, day)
            price = Decimal(3 + int(4 * fraction(seed, "price", sku, day)))
            yield _offer(begin + timedelta(hours=9), said, supplier, sku, day, price)


def _order(seed: int, name: str, at: datetime) -> OrderPlaced:
    lines = tuple(
        OrderedLine(line=line, sku=_sku(seed, name, line), quantity=one_of(_QUANTITIES, seed, "quantity", name, line), unit_price=Decimal("9.90"))
        for line in range(1, 1 + one_of(_LINES, seed, "lines", name))
    )  # fmt: skip
    customer = Customer(
        id=f"C-{name}", name=f"Zoë Łukasz {name}", email=f"{name.lower()}@example.com", time_zone=one_of(_ZONES, seed, "zone", name)
    )
    return OrderPlaced(order=name, placed_at=at, customer=customer, currency=_CURRENCY, lines=lines)


def _sku(seed: int, name: str, line: int) -> str:
    """A few SKUs are wanted most of all; one line in a hundred asks for one that nobody has heard of."""
    chance = fraction(seed, "sku", name, line)
    return f"nobody-{name}" if chance > 0.99 else skus()[int(SKUS * chance**2)]


def _cancellations(seed: int, order: OrderPlaced) -> Iterator[Publication]:
    """What the customer thinks better of: soon, when the parcel leaves (± 10 minutes), or when all is over; sometimes twice."""
    for attempt in range(2):
        if fraction(seed, "cancels", order.order, attempt) > 0.12:
            continue
        race = SHIPS_AFTER + timedelta(minutes=20) * (fraction(seed, "race", order.order, attempt) - 0.5)
        later = one_of(
            (timedelta(minutes=1), timedelta(hours=7), race, race, timedelta(days=4), timedelta(days=15)),
            seed,
            "later",
            order.order,
            attempt,
        )
        what = one_of(("order", "line", "quantity", "unknown line"), seed, "what", order.order, attempt)
        line = one_of(order.lines, seed, "which", order.order, attempt)
        wish = OrderCancelRequested(
            request=f"{order.order}-X{attempt}",
            order=order.order,
            line={"order": None, "unknown line": 999}.get(what, line.line),
            quantity=1 if what == "quantity" else None,
            requested_at=order.placed_at + later,
        )
        yield Publication(wish.requested_at, wish, f"{order.order}/{wish.request}", SHOP)
