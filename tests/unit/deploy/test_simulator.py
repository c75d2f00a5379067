"""Suppliers, dock and shipping: what they say is a function of what they read, and everything is delivered in the end."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.publisher import Publication
from deploy.local.simulator import SHIPS_AFTER, Simulator
from deploy.local.suppliers import Conduct, LastSuppliers, Rates, at_rates, messages
from shared.contracts.base import Currency, Message
from shared.contracts.commerce import ShipmentConfirmed
from shared.contracts.orders import Amounts, CancelReason, LineAllocated, LineCancelled, LineChange, LineShipped, OrderCompleted
from shared.contracts.purchasing import PurchaseLine, PurchaseOrderIssued
from shared.contracts.suppliers import GoodsReceived, LineAnswer, OfferChanged, PurchaseOrderAcknowledged

UTC_ZONE = ZoneInfo("UTC")
ISSUED = datetime(2011, 1, 10, 13, tzinfo=UTC)
FOREVER = datetime(9000, 1, 1, tzinfo=UTC)
PUNCTUAL = at_rates(Rates(slip=0, reject=0, short=0, twice=0), {})


def issued(name="acme-1", supplier="acme", quantities=(10, 7), expected=date(2011, 1, 17)) -> PurchaseOrderIssued:
    lines = tuple(
        PurchaseLine(line=number, sku=f"sku-{number}", quantity=quantity, unit_price=Decimal(1), expected_on=expected)
        for number, quantity in enumerate(quantities, start=1)
    )
    return PurchaseOrderIssued(purchase_order=name, supplier=supplier, currency=Currency("GBP"), issued_at=ISSUED, lines=lines)


def said(order: PurchaseOrderIssued, conduct: Conduct) -> list[Publication]:
    return sorted(messages(order, conduct, UTC_ZONE), key=lambda each: each.time)


def test_a_good_supplier_accepts_and_delivers_on_the_day():
    [answer, receipt] = said(issued(), Conduct())
    assert isinstance(answer.message, PurchaseOrderAcknowledged)
    assert [line.answer for line in answer.message.lines] == [LineAnswer.ACCEPTED] * 2
    assert (answer.id, answer.source, answer.time) == ("acme-1-ack", "/clients/supplier/acme", ISSUED + timedelta(hours=2))
    assert isinstance(receipt.message, GoodsReceived)
    assert [(line.sku, line.good) for line in receipt.message.lines] == [("sku-1", 10), ("sku-2", 7)]
    assert (receipt.id, receipt.time) == ("acme-1-r1", datetime(2011, 1, 17, 8, tzinfo=UTC))


def test_goods_arrive_in_the_morning_of_the_warehouse_s_zone():
    [_, receipt] = messages(issued(), Conduct(), ZoneInfo("America/New_York"))
    assert receipt.time == datetime(2011, 1, 17, 13, tzinfo=UTC)


def test_a_supplier_who_slips_says_so_and_keeps_the_new_day():
    [answer, receipt] = said(issued(), Conduct(slip_days=3))
    assert isinstance(answer.message, PurchaseOrderAcknowledged)
    assert {(line.answer, line.expected_on) for line in answer.message.lines} == {(LineAnswer.CHANGED, date(2011, 1, 20))}
    assert receipt.time.date() == date(2011, 1, 20)


def test_a_rejected_line_is_not_delivered():
    [answer, receipt] = said(issued(), Conduct(rejected=frozenset({1})))
    assert isinstance(answer.message, PurchaseOrderAcknowledged)
    assert [line.answer for line in answer.message.lines] == [LineAnswer.REJECTED, LineAnswer.ACCEPTED]
    assert isinstance(receipt.message, GoodsReceived)
    assert [line.line for line in receipt.message.lines] == [2]
    assert len(said(issued(), Conduct(rejected=frozenset({1, 2})))) == 1


def test_the_rest_of_a_short_delivery_comes_three_days_later():
    [_, first, second] = said(issued(), Conduct(short=frozenset({2})))
    assert [[(line.line, line.good) for line in each.message.lines] for each in (first, second)] == [[(1, 10), (2, 3)], [(2, 4)]]  # type: ignore[attr-defined]
    assert second.time - first.time == timedelta(days=3)
    assert (first.id, second.id) == ("acme-1-r1", "acme-1-r2")


def test_a_receipt_is_repeated_as_it_was_and_under_a_new_message_id():
    receipts = [each for each in said(issued(), Conduct(repeated=True, told_again=True)) if isinstance(each.message, GoodsReceived)]
    assert [each.id for each in receipts] == ["acme-1-r1", "acme-1-r1", "acme-1-r1-again"]
    assert len({each.message.model_dump_json() for each in receipts}) == 1


def test_lines_expected_on_different_days_come_in_receipts_of_their_own():
    order = issued()
    order = order.model_copy(update={"lines": (order.lines[0], order.lines[1].model_copy(update={"expected_on": date(2011, 1, 19)}))})
    receipts = [each for each in said(order, Conduct()) if isinstance(each.message, GoodsReceived)]
    assert [(each.id, each.time.day) for each in receipts] == [("acme-1-r1", 17), ("acme-1-r1.2", 19)]


SHARES = st.floats(0, 1)
RATES = st.builds(Rates, slip=SHARES, reject=SHARES, short=SHARES, twice=SHARES, seed=st.integers(0, 9))
ORDERS = st.builds(
    issued,
    name=st.sampled_from(["acme-1", "acme-2", "acme-77"]),
    quantities=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=8).map(tuple),
)


@given(ORDERS, RATES)
def test_the_last_supplier_declines_nothing_and_delivers_everything(order, rates):
    last = {line.sku: "acme" for line in order.lines}
    arrived: Counter[int] = Counter()
    receipts = {}
    for each in messages(order, at_rates(rates, last)(order), UTC_ZONE):
        if isinstance(each.message, PurchaseOrderAcknowledged):
            assert LineAnswer.REJECTED not in {line.answer for line in each.message.lines}
        elif isinstance(each.message, GoodsReceived):
            receipts[each.message.receipt] = each.message
    for receipt in receipts.values():
        for line in receipt.lines:
            arrived[line.line] += line.good
    assert arrived == {line.line: line.quantity for line in order.lines}


@given(ORDERS, RATES)
def test_what_is_neither_rejected_nor_there_twice_arrives_once(order, rates):
    conduct = at_rates(rates, {})(order)
    assert not conduct.rejected, "nobody else could deliver"
    other = at_rates(replace(rates, reject=1.0), {line.sku: "somebody else" for line in order.lines})(order)
    assert other.rejected == {line.line for line in order.lines}


@given(ORDERS, RATES)
def test_nothing_is_said_before_the_order_and_the_answer_comes_first(order, rates):
    behaviour = at_rates(rates, {line.sku: "somebody else" for line in order.lines[1:]})
    [first, *rest] = messages(order, behaviour(order), UTC_ZONE)
    assert isinstance(first.message, PurchaseOrderAcknowledged)
    assert order.issued_at < first.time
    assert all(each.time >= first.time for each in rest)


def test_who_asks_again_gets_the_same_and_another_seed_gives_another():
    orders = [issued(f"acme-{number}") for number in range(50)]
    rates = Rates(slip=0.5, short=0.5, twice=0.5)
    assert [at_rates(rates, {})(order) for order in orders] == [at_rates(rates, {})(order) for order in orders]
    assert [at_rates(rates, {})(order) for order in orders] != [at_rates(replace(rates, seed=1), {})(order) for order in orders]


def test_shares_are_about_what_was_asked_for():
    behaviour = at_rates(Rates(slip=0.1, reject=0.05, short=0.1, twice=0.1), {"sku-1": "other", "sku-2": "other"})
    conducts = [behaviour(issued(f"acme-{number}")) for number in range(2000)]
    assert 150 < sum(conduct.slip_days > 0 for conduct in conducts) < 250
    assert 150 < sum(len(conduct.rejected) for conduct in conducts) < 250
    assert {conduct.slip_days for conduct in conducts} == {0, 2, 3, 4, 5}


def test_the_last_supplier_is_the_one_that_purchasing_asks_last():
    last = LastSuppliers()
    for supplier, price, days in (("a", "2", 3), ("b", "3", 3), ("c", "3", 5), ("d", "1", 9)):
        last.take(OfferChanged(supplier=supplier, sku="s", price=Decimal(price), currency=Currency("GBP"), lead_days=days))
    assert last == {"s": "c"}


# Shipping


def change(line=1, quantity=5, *, allocated=0, shipped=0, cancelled=0, ordered=10, version=1) -> LineChange:
    rest = ordered - allocated - shipped - cancelled
    amounts = Amounts(ordered=ordered, pending=0, allocated=allocated, backordered=rest, shipped=shipped, cancelled=cancelled)
    return LineChange(line=line, sku="s", quantity=quantity, amounts=amounts, version=version)


AT = datetime(2011, 1, 10, 9, tzinfo=UTC)


def allocated(*changes: LineChange, at=AT) -> LineAllocated:
    return LineAllocated(order="o", at=at, lines=changes)


def cancelled(*changes: LineChange) -> LineCancelled:
    return LineCancelled(order="o", at=AT, lines=changes, reason=CancelReason.CUSTOMER)


def shipments(*heard: Message, until=FOREVER) -> list[Publication]:
    simulator = Simulator(PUNCTUAL, UTC_ZONE)
    for message in heard:
        simulator.take(message)
    return list(simulator.due(until))


def units(publications: list[Publication]) -> list[list[tuple[int, int]]]:
    return [
        [(line.line, line.quantity) for line in each.message.lines] for each in publications if isinstance(each.message, ShipmentConfirmed)
    ]


def test_what_is_allocated_ships_a_day_later():
    event = allocated(change(1, 5, allocated=5), change(2, 3, allocated=3))
    assert shipments(event, until=AT + SHIPS_AFTER - timedelta(seconds=1)) == []
    [shipment] = shipments(event, until=AT + SHIPS_AFTER)
    assert units([shipment]) == [[(1, 5), (2, 3)]]
    assert (shipment.id, shipment.time, shipment.source) == ("o-1.1", AT + SHIPS_AFTER, "/clients/warehouse/shipping")


def test_each_allocation_ships_once_however_often_it_is_told():
    first = allocated(change(allocated=5, version=1))
    second = allocated(change(1, 2, allocated=7, version=3), at=AT + timedelta(hours=1))
    found = shipments(first, second, first, second)
    assert units(found) == [[(1, 5)], [(1, 2)]]
    assert [each.id for each in found] == ["o-1.1", "o-1.3"]


def test_units_cancelled_meanwhile_do_not_ship():
    assert units(shipments(allocated(change(allocated=5)), cancelled(change(1, 8, allocated=2, cancelled=8, version=2)))) == [[(1, 2)]]
    assert shipments(allocated(change(allocated=5)), cancelled(change(1, 10, cancelled=10, version=2))) == []


def test_a_cancellation_is_taken_off_once():
    heard = (
        allocated(change(1, 5, allocated=5, version=1)),
        allocated(change(1, 3, allocated=8, version=2), at=AT + timedelta(hours=1)),
        cancelled(change(1, 6, allocated=4, cancelled=6, version=3)),
    )
    assert units(shipments(*heard)) == [[(1, 4)]]


def test_what_was_shipped_before_a_restart_is_not_said_differently():
    event = allocated(change(allocated=5))
    [said_before] = shipments(event)
    assert isinstance(said_before.message, ShipmentConfirmed)
    came_back = LineShipped(order="o", at=said_before.time, lines=(change(1, 5, shipped=5, version=2),), shipment=said_before.id)
    assert shipments(event, came_back) == []
    later = allocated(change(1, 5, allocated=5, shipped=5, version=3), at=AT + timedelta(days=2))
    assert units(shipments(event, came_back, later)) == [[(1, 5)]]
    assert shipments(event) == [said_before]


def test_a_completed_order_is_forgotten():
    assert shipments(allocated(change(allocated=5)), OrderCompleted(order="o", at=AT)) == []


def test_everything_is_said_in_the_order_in_which_it_is_due():
    simulator = Simulator(at_rates(Rates(slip=0.5, short=0.5, twice=0.5), {}), UTC_ZONE)
    for number in range(20):
        simulator.take(issued(f"acme-{number}"))
    simulator.take(allocated(change(allocated=5)))
    assert simulator.next_due is not None
    assert ISSUED < simulator.next_due < AT + SHIPS_AFTER
    times = [each.time for each in simulator.due(FOREVER)]
    assert times == sorted(times)
    assert simulator.next_due is None
