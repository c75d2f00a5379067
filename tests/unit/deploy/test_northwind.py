"""The Northwind story is what its description says."""

from collections import Counter

from deploy.local import northwind
from deploy.local.suppliers import Conduct
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import BackorderPolicy, SkuDefined, StockCounted


def test_forty_orders_of_49_days():
    story = northwind.story()
    orders = [event.message for event in story.events if isinstance(event.message, OrderPlaced)]
    assert len(orders) == 40
    assert sum(len(order.lines) for order in orders) == 107
    assert (orders[-1].placed_at - orders[0].placed_at).days == 49
    assert [event.time for event in story.events] == sorted(event.time for event in story.events)


def test_without_purchases_a_third_would_wait_and_fifteen_lines_would_be_refused():
    story = northwind.story()
    stock = {each.message.sku: each.message.on_hand for each in story.definitions if isinstance(each.message, StockCounted)}
    policy = {each.message.sku: each.message.backorder for each in story.definitions if isinstance(each.message, SkuDefined)}
    short: Counter[BackorderPolicy] = Counter()
    for event in story.events:
        if isinstance(event.message, OrderPlaced):
            for line in event.message.lines:
                served = min(stock[line.sku], line.quantity)
                stock[line.sku] -= served
                short[policy[line.sku]] += served < line.quantity
    assert short == {BackorderPolicy.ALLOW: 39, BackorderPolicy.DENY: 15}


def test_every_sku_has_an_offer_and_tofu_has_two():
    offers = [each.message for each in northwind.story().definitions if isinstance(each.message, OfferChanged)]
    suppliers = Counter(offer.sku for offer in offers)
    assert {sku for sku, count in suppliers.items() if count > 1} == {"74-longlife-tofu"}
    assert all((offer.pack, offer.lead_days) == (10, 7) for offer in offers)
    [first, second] = [offer for offer in offers if offer.sku == "74-longlife-tofu"]
    assert (first.supplier, second.supplier) == ("tokyo-traders", "mayumi-s")
    assert first.price < second.price


def test_the_script_names_suppliers_and_a_line_that_exist():
    story = northwind.story()
    suppliers = {each.message.supplier for each in story.definitions if isinstance(each.message, OfferChanged)}
    assert {name.rpartition("-")[0] for name in northwind.CONDUCT} <= suppliers
    [wish] = [event.message for event in story.events if isinstance(event.message, OrderCancelRequested)]
    [order] = [event.message for event in story.events if isinstance(event.message, OrderPlaced) and event.message.order == wish.order]
    assert wish.line in {line.line for line in order.lines}
    assert order.placed_at < wish.requested_at
    assert Conduct() not in northwind.CONDUCT.values()


def test_names_become_ids():
    assert northwind.slug("Original Frankfurter grüne Soße") == "original-frankfurter-grune-sosse"
    assert northwind.slug("G'day, Mate") == "g-day-mate"
