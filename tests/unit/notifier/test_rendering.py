"""The texts of mails, and that nothing from outside can break out of its place."""

from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.rendering import day, moment, one_line, units
from services.notifier.sender import _ADDRESS, connection, content
from services.notifier.store import Queued
from tests.unit.notifier.world import DIGEST, NOON, World, change, december

HEADERS = [
    "Subject", "From", "To", "Message-ID", "Date", "X-Backorder-Order", "Auto-Submitted",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
]  # fmt: skip


def queued(order: str = "A-1", subject: str = "News", body: str = "Hello", recipient: str = "ann@example.org") -> Queued:
    return Queued(order, 1, recipient, subject, body, "<1@backorder.example>", NOON)


def test_the_whole_mail_reads_well():
    world = World(time_zone="Asia/Tokyo")
    world.shipped(change(1, line=1, allocated=1, shipped=1), carrier="DHL", tracking="T-1")
    world.allocated(change(1, line=1, allocated=1, shipped=1))
    world.backordered(change(2, line=2, backordered=2, allocated=1, ship_by=december(10), promise=1))
    world.cancelled(change(1, line=3, cancelled=1))
    world.now = datetime(2026, 12, 4, 16, 0, tzinfo=UTC)
    [mail] = world.passes(DIGEST)
    assert mail.subject == "Your order A-1 has news"
    assert mail.body == (
        "Dear Ann,\n\n"
        "here is the news of your order A-1, as of Saturday, 5 December 2026, 01:00 (Asia/Tokyo).\n\n"
        "Shipped\n"
        "- SKU-1: 1 of 2 units, on Friday, 4 December 2026, with DHL, tracking number T-1\n\n"
        "Being prepared for shipment\n"
        "- SKU-1: 1 of 2 units\n\n"
        "On backorder: these wait for a delivery to us\n"
        "- SKU-2: 2 of 3 units, expected to ship by Thursday, 10 December 2026\n"
        "You may wait, or cancel what has not shipped: answer this mail, or cancel in the shop.\n\n"
        "Cancelled\n"
        "- SKU-3: 1 unit, as you asked\n\n"
        "Thank you for your order.\n"
    )


def test_dates_and_amounts():
    assert day(december(4)) == "Friday, 4 December 2026"
    assert moment(datetime(2026, 7, 1, 23, 30, tzinfo=UTC), "Europe/London") == "Thursday, 2 July 2026, 00:30 (Europe/London)"
    assert [units(1, 1), units(3, 3), units(1, 3), units(0, 0)] == ["1 unit", "3 units", "1 of 3 units", "0 units"]


@given(st.text())
def test_text_from_outside_stays_on_its_line(text):
    assert len(one_line(text).splitlines()) <= 1
    assert "\x00" not in one_line(text)


def test_a_name_or_a_tracking_number_cannot_add_a_paragraph():
    world = World(name="Ann\r\n\r\nPay here: evil.example")
    world.shipped(change(1, shipped=1), tracking="T\u2028- SKU-9: 5 units")
    [mail] = world.passes(DIGEST)
    assert "Dear Ann Pay here: evil.example,\n" in mail.body
    assert "tracking number T - SKU-9: 5 units\n" in mail.body


HOSTILE = st.text(max_size=60) | st.sampled_from(
    ["=?utf-8?q?x=0D=0ABcc:_evil@example.org?=", "x\r\nBcc: evil@example.org", "x\x85y", "=?utf-8?b?"]
)


@given(order=HOSTILE, body=HOSTILE)
def test_nothing_from_outside_can_add_a_header_or_change_one(order, body):
    raw = content(queued(order, f"Your order {order} has shipped", body), "Backorder <orders@backorder.example>")
    parsed = message_from_bytes(raw)
    assert parsed.keys() == HEADERS
    assert b"\r\nBcc" not in raw.partition(b"\r\n\r\n")[0]
    assert max(len(line) for line in raw.split(b"\r\n")) < 998


@pytest.mark.parametrize("order", ["A-1", "Größe-7", "a=?b", "注文-1", "=?utf-8?q?sneaky?="])
def test_headers_and_body_are_read_as_they_were_written(order):
    body = f"Dear Zoë,\n\n.\n{order} = 100 %  \nlast\n"
    parsed = message_from_bytes(content(queued(order, f"Your order {order}", body), "Bäckorder <o@b.example>"), policy=policy.default)
    text = parsed.get_body(("plain",))
    assert (parsed["Subject"], parsed["X-Backorder-Order"], parsed["To"]) == (f"Your order {order}", order, "ann@example.org")
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == body
    assert parsed["From"].addresses[0].addr_spec == "o@b.example"


@pytest.mark.parametrize("address", ["a(b)@c.d", "group:x@y.z", 'a"@x.y', "a\x01@c.d", "<a@b.c", "a@b@c", "a\r\nRCPT TO:<x@y.z>@b.c"])
def test_addresses_that_servers_would_read_otherwise_are_not_sent_to(address):
    assert not _ADDRESS.fullmatch(address)


def test_the_mail_servers_url():
    client = connection("smtp://user:p%40ss@mail.example:2525")
    assert (client.hostname, client.port) == ("mail.example", 2525)
    with pytest.raises(ValueError, match="smtp://"):
        connection("mail.example:25")
