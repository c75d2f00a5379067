"""What the outside world wants of the system in one world: a few SKUs, offers, orders and cancellations, chosen by the seed alone."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from deploy.local.publisher import Publication
from shared.contracts.base import Message
from shared.contracts.commerce import Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
SHOP, CATALOGUE, WAREHOUSE = "/clients/shop/web", "/clients/catalogue", "/clients/warehouse/stock"
SUPPLIERS = ("acme", "bolt", "cord")


@dataclass(frozen=True, slots=True)
class Article:
    """A SKU. `policy` None: the catalogue never defines it. A `late` one is defined and counted when orders have come already."""

    sku: str
    policy: BackorderPolicy | None
    opening: int
    pack: int
    minimum: int
    late: bool
    suppliers: tuple[str, ...]
    """Cheapest first; the last never declines."""

    @property
    def plain(self) -> bool:
        """Whether every unit of it that is ordered will ship, unless its customer cancels."""
        return self.policy is BackorderPolicy.ALLOW and not self.late


@dataclass(frozen=True)
class Story:
    """`before` happens before anything goes wrong, `events` come at their times."""

    articles: tuple[Article, ...]
    before: tuple[Publication, ...]
    events: tuple[Publication, ...]

    @property
    def orders(self) -> tuple[OrderPlaced, ...]:
        """The orders that are placed."""
        return tuple(event.message for event in self.events if isinstance(event.message, OrderPlaced))

    @property
    def cancellations(self) -> tuple[OrderCancelRequested, ...]:
        """The cancellations that are asked for."""
        return tuple(event.message for event in self.events if isinstance(event.message, OrderCancelRequested))


def story(seed: int) -> Story:
    """The story of a seed."""
    random = Random(f"story {seed}")
    articles = tuple(_article(random, f"S{number}") for number in range(1, random.randint(2, 4) + 1))
    if not any(article.plain for article in articles):
        articles = (Article("S0", BackorderPolicy.ALLOW, random.randint(0, 3), 1, 1, late=False, suppliers=("acme", "bolt")), *articles)
    before = [each for article in articles if not article.late for each in _defined(article, START)]
    before += [offer for article in articles for offer in _offers(random, article)]
    events = [each for article in articles if article.late for each in _defined(article, START + timedelta(hours=random.randint(1, 30)))]
    orders = [_order(random, number, articles) for number in range(1, random.randint(3, 6) + 1)]
    for order in orders:
        events.append(Publication(order.placed_at, order, order.order, SHOP))
        events += (Publication(wish.requested_at, wish, f"{order.order}/{wish.request}", SHOP) for wish in _wishes(random, order))
    if random.random() < 0.4:
        events.append(_new_terms(random, random.choice(articles)))
    return Story(articles, tuple(before), tuple(sorted(events, key=lambda event: event.time)))


def _article(random: Random, sku: str) -> Article:
    kind = random.choices(("plain", "deny", "late", "unknown"), (12, 2, 1, 1))[0]
    policy = {"deny": BackorderPolicy.DENY, "unknown": None}.get(kind, BackorderPolicy.ALLOW)
    pack = random.choice((1, 1, 1, 1, 3))
    suppliers = tuple(random.sample(SUPPLIERS, random.randint(1, 3)))
    return Article(sku, policy, random.choice((0, 0, 1, 3, 6)), pack, random.choice((1, pack)), kind == "late", suppliers)


def _defined(article: Article, at: datetime) -> list[Publication]:
    if article.policy is None:
        return []
    return [
        Publication(at, SkuDefined(sku=article.sku, backorder=article.policy), f"sku-{article.sku}", CATALOGUE),
        Publication(at, _count(article, at), f"count-{article.sku}", WAREHOUSE),
    ]


def _count(article: Article, at: datetime) -> Message:
    return StockCounted(count=f"count-{article.sku}", sku=article.sku, on_hand=article.opening, counted_at=at)


def _offers(random: Random, article: Article) -> list[Publication]:
    offers = [_offer(random, article, supplier, Decimal(place)) for place, supplier in enumerate(article.suppliers, 1)]
    return [Publication(START, offer, f"offer-{offer.supplier}-{offer.sku}", f"/clients/supplier/{offer.supplier}") for offer in offers]


def _offer(random: Random, article: Article, supplier: str, price: Decimal) -> OfferChanged:
    return OfferChanged(
        supplier=supplier, sku=article.sku, price=price, currency="EUR", pack=article.pack, minimum=article.minimum,
        lead_days=random.randint(0, 3),
    )  # fmt: skip


def _new_terms(random: Random, article: Article) -> Publication:
    """The dearest supplier, who never declines, becomes quicker or slower while orders are under way."""
    supplier = article.suppliers[-1]
    offer = _offer(random, article, supplier, Decimal(len(article.suppliers)))
    at = START + timedelta(hours=random.randint(1, 24))
    return Publication(at, offer, f"offer-{supplier}-{article.sku}-2", f"/clients/supplier/{supplier}")


def _order(random: Random, number: int, articles: tuple[Article, ...]) -> OrderPlaced:
    order, at = f"O{number}", START + timedelta(minutes=random.choice((5, 5, 30, 60, 240, 600)))
    mailbox = random.choices(("ann", "bo", "nobody"), (4, 4, 1))[0]
    return OrderPlaced(
        order=order,
        placed_at=at,
        customer=Customer(id=f"C-{mailbox}", name=mailbox.title(), email=f"{mailbox}@example.com"),
        currency="EUR",
        lines=tuple(
            OrderedLine(line=line, sku=random.choice(articles).sku, quantity=random.randint(1, 5), unit_price=Decimal(2))
            for line in range(1, random.choice((1, 1, 2, 3)) + 1)
        ),
    )


def _wishes(random: Random, order: OrderPlaced) -> list[OrderCancelRequested]:
    """Up to two cancellations: of the whole order, a line, or some units; soon, or when goods are on their way."""
    wishes = []
    for number in range(random.choices((0, 1, 2), (6, 3, 1))[0]):
        line = random.choice((None, *(line.line for line in order.lines)))
        quantity = random.choice((None, 1, 2)) if line else None
        at = order.placed_at + timedelta(minutes=random.choice((0, 1, 60, 600, 1500, 3000, 4500)))
        wishes.append(OrderCancelRequested(request=f"R{number}", order=order.order, line=line, quantity=quantity, requested_at=at))
    return wishes
