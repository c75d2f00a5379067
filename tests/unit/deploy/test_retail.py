"""What a row of Online Retail means."""

import csv
import gzip
import io
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local import assortment, retail
from deploy.local.errors import UserError
from shared.contracts.base import MAX_LINES

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def sales(*rows: str, limit: int | None = None) -> retail.Sales:
    return retail.sales(retail.invoices(csv.reader(io.StringIO("\n".join([HEADER, *rows])))), limit)


def row(invoice="1", sku="22139", quantity=5, day="2010-12-01", time="10:00:00", price="2.5", customer="17850.0") -> str:
    return f"{invoice},{sku},THING,{quantity},{day} {time},{price},{customer},United Kingdom"


def test_an_invoice_is_one_order_wherever_its_rows_stand():
    found = sales(row("1"), row("2"), row("1", sku="84029e"))
    assert [(order.order, [(line.line, line.sku, line.quantity) for line in order.lines]) for order in found.orders] == [
        ("1", [(1, "22139", 5), (2, "84029E", 5)]),
        ("2", [(1, "22139", 5)]),
    ]


def test_a_sku_that_stands_twice_stays_two_lines():
    [order] = sales(row(quantity=5), row(quantity=2)).orders
    assert [(line.line, line.sku, line.quantity) for line in order.lines] == [(1, "22139", 5), (2, "22139", 2)]


def test_a_line_s_number_is_its_position_in_the_invoice_skipped_rows_counted():
    [order] = sales(row(sku="POST"), row()).orders
    assert [line.line for line in order.lines] == [2]


def test_customer_time_and_currency():
    [known, unknown] = sales(row("1", day="2011-05-02", time="08:26:00"), row("2", day="2011-05-03", customer="")).orders
    assert known.placed_at == datetime(2011, 5, 2, 7, 26, tzinfo=UTC)  # summer time in London
    assert (known.customer.id, known.customer.email, known.customer.time_zone) == ("17850", "17850@example.com", "Europe/London")
    assert (unknown.customer.id, unknown.customer.email) == ("2", "2@example.com")
    assert known.currency == "GBP"


@pytest.mark.parametrize(
    ("given_row", "reason"),
    [
        (row(sku="POST"), "not_goods"),
        (row(sku="M", quantity=-1), "not_goods"),
        (row(sku="gift_0001_20"), "not_goods"),
        (row(sku="22139ABC"), "not_goods"),
        (row(quantity=-3), "write_off"),
        (row(quantity=-3, price="0.0"), "write_off"),
        (row(price="0.0"), "zero_price"),
        (row("C1", quantity=-1), "unmatched"),
        (row("C1", quantity=-1, customer=""), "no_customer"),
        (row("C1", sku="D", quantity=-1, customer=""), "not_goods"),
    ],
)
def test_what_is_skipped_and_why(given_row, reason):
    found = sales(given_row)
    assert (found.orders, found.cancellations, dict(found.skipped)) == ([], [], {reason: 1})


def wishes(found: retail.Sales) -> list[tuple[str, str, int | None, int | None]]:
    return [(wish.request, wish.order, wish.line, wish.quantity) for wish in found.cancellations]


def test_a_cancellation_is_matched_to_the_latest_earlier_line():
    found = sales(row("1"), row("2", time="11:00:00"), row("C3", quantity=-2, time="12:00:00"), row("4", time="13:00:00"))
    assert wishes(found) == [("C3-1", "2", 1, 2)]
    assert found.cancellations[0].requested_at == datetime(2010, 12, 1, 12, tzinfo=UTC)


def test_a_cancellation_needs_a_line_with_so_many_units_left():
    found = sales(
        row("1", quantity=5), row("2", quantity=3, time="11:00:00"), *(row(f"C{n}", quantity=-3, time="12:00:00") for n in (3, 4, 5))
    )
    assert wishes(found) == [("C3-1", "2", 1, 3), ("C4-1", "1", 1, 3)]
    assert found.skipped == Counter(unmatched=1)


def test_another_customer_or_sku_does_not_match():
    found = sales(row("1"), row("C2", customer="1.0", quantity=-1, time="11:00:00"), row("C3", sku="11111", quantity=-1, time="11:00:00"))
    assert (wishes(found), found.skipped) == ([], Counter(unmatched=2))


@pytest.mark.parametrize(("time", "skipped"), [("10:00:00", {}), ("10:00:01", {"returned_later": 1})])
def test_after_seven_days_it_is_a_return(time, skipped):
    found = sales(row("1"), row("C2", quantity=-5, day="2010-12-08", time=time))
    assert dict(found.skipped) == skipped
    assert len(found.cancellations) == 1 - len(skipped)


def test_what_was_returned_cannot_be_cancelled_again():
    found = sales(row("1", quantity=5), row("C2", quantity=-5, day="2010-12-20"), row("C3", quantity=-5, day="2010-12-21"))
    assert found.skipped == Counter(returned_later=1, unmatched=1)


def test_an_invoice_that_is_too_long_becomes_several_orders():
    found = sales(*[row() for _ in range(MAX_LINES + 2)])
    assert [(order.order, len(order.lines), order.lines[0].line) for order in found.orders] == [
        ("1", MAX_LINES, 1),
        ("1-2", 2, MAX_LINES + 1),
    ]


def test_the_limit_keeps_whole_invoices_and_looks_no_further():
    rows = [
        row("1"),
        row("1"),
        row("2", time="11:00:00"),
        row("2", time="11:00:00"),
        row("3", time="12:00:00"),
        row("C4", quantity=-1, day="2010-12-02"),
    ]
    found = sales(*rows, limit=3)
    assert ([order.order for order in found.orders], found.lines, found.cancellations) == (["1"], 2, [])
    assert [order.order for order in sales(*rows, limit=1).orders] == ["1"]
    assert sales(*rows, limit=5).lines == 5


def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="UnitPrice"):
        retail.invoices(iter([["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID"]]))
    with pytest.raises(UserError, match="row 2"):
        sales(row(quantity="many"))
    with pytest.raises(UserError, match="no time"):
        sales(row(day="yesterday"))
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        list(retail.read(broken))


def test_compressed_or_not_is_the_same(tmp_path: Path):
    plain, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_text(f"{HEADER}\n{row()}\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(retail.read(plain)) == list(retail.read(packed))


ROWS = st.builds(
    row,
    invoice=st.sampled_from(["1", "2", "3", "C1", "C2"]),
    sku=st.sampled_from(["22139", "22139a", "POST"]),
    quantity=st.integers(-6, 6).filter(bool),
    day=st.sampled_from(["2010-12-01", "2010-12-05", "2010-12-20"]),
    price=st.sampled_from(["0.0", "2.5"]),
    customer=st.sampled_from(["", "1.0", "2.0"]),
)


@given(st.lists(ROWS, max_size=40))
def test_every_row_becomes_a_line_a_cancellation_or_is_counted(rows):
    found = sales(*rows)
    assert found.lines + len(found.cancellations) + found.skipped.total() == len(rows)


@given(st.lists(ROWS, max_size=40))
def test_no_line_is_cancelled_beyond_what_was_ordered(rows):
    found = sales(*rows)
    ordered = {(order.order, line.line): line.quantity for order in found.orders for line in order.lines}
    placed = {order.order: order.placed_at for order in found.orders}
    for wish in found.cancellations:
        ordered[wish.order, wish.line or 0] -= wish.quantity or 0
        assert placed[wish.order] <= wish.requested_at
    assert all(left >= 0 for left in ordered.values())


def test_opening_stock_goes_by_the_sku_s_class():
    skus = [f"{number:05}" for number in range(2000)]
    stocks = Counter(assortment.opening_stock(sku, 101, (2, 3, 5)) for sku in skus)
    assert set(stocks) == {0, 50, 101}
    assert 0.15 < stocks[0] / len(skus) < 0.25
    assert 0.25 < stocks[50] / len(skus) < 0.35
    assert assortment.opening_stock("22139", 10, (0, 0, 10)) == 10  # zlib.crc32(b"22139") % 10 decides nothing when all have all


@given(st.from_regex(r"\A\d{5}[A-Z]{0,2}\Z"), st.integers(2, 40))
def test_a_sku_has_two_suppliers(sku, count):
    first, second = assortment.suppliers_of(sku, assortment.Terms(suppliers=count))
    assert first != second


def test_the_shipped_excerpt_has_every_kind_of_row():
    excerpt = Path(retail.__file__).parent / "data" / "online-retail" / "excerpt.csv"
    found = retail.sales(retail.invoices(retail.read(excerpt)))
    story = assortment.story(found, assortment.Terms())
    assert 400 <= found.lines <= 600
    assert found.cancellations
    assert set(found.skipped) == {"not_goods", "unmatched", "write_off", "zero_price"}
    assert [event.time for event in story.events] == sorted(event.time for event in story.events)
    assert story.start < story.events[0].time
