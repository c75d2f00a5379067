"""Loading and saving on a real PostgreSQL: what handlers decided is what the database holds, and the audit can see it broken."""

from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from services.notifier import store
from services.notifier.api import router
from services.notifier.app import service
from services.notifier.audit import CHECKS, COUNTS
from services.notifier.domain import WITHOUT_DATE, MailKey, mail_id
from services.notifier.handlers import MailFailed, MailSent
from services.notifier.store import queued
from shared.codec import decode
from shared.contracts.notifier import NOTICES_EVENTS
from shared.contracts.orders import CancelReason, LineAllocated, LineBackordered, LineCancelled, LinePromised, LineShipped, OrderRejected
from shared.service import Context
from shared.settings import Settings
from tests.integration.notifier.conftest import Notifier
from tests.unit.notifier.world import DIGEST, NOON, accepted, change, december

SERVICE = service(Settings())


def backordered(order: str, *changes: Any) -> LineBackordered:
    return LineBackordered(order=order, at=NOON, lines=changes)


def promised(order: str, *changes: Any) -> LinePromised:
    return LinePromised(order=order, at=NOON, lines=changes)


def allocated(order: str, *changes: Any) -> LineAllocated:
    return LineAllocated(order=order, at=NOON, lines=changes)


async def test_a_whole_story(notifier: Notifier):
    await notifier.hears(
        accepted("A-1"),
        accepted("B-1", name="Bob", email="bob@example.org"),
        backordered("A-1", change(3, line=1, backordered=3, ship_by=december(10), promise=1)),
        backordered("B-1", change(2, line=1, backordered=2)),
        allocated("A-1", change(1, line=2, allocated=1)),
        OrderRejected(order="C-1", at=NOON, errors=()),
    )
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    assert (mail.order, mail.recipient, mail.created_at) == ("A-1", "ann@example.org", NOON + DIGEST)
    assert "Thursday, 10 December 2026" in mail.body
    assert await notifier.violations() == {}

    await notifier.transactions.tell([MailSent(order=mail.order, number=mail.number)])
    await notifier.transactions.tell([MailSent(order=mail.order, number=mail.number)])
    assert await queued(notifier.pool, 10) == []
    assert await notifier.published() == [("backorder.notifier.NoticeSent.v1", str(mail_id(MailKey(mail.order, mail.number))))]
    assert await notifier.violations() == {}

    await notifier.hears(
        promised("A-1", change(3, line=1, backordered=3, ship_by=december(12), promise=2, version=2)),
        allocated("B-1", change(2, line=1, allocated=2, version=2)),
        LineCancelled(order="A-1", at=NOON, lines=(change(1, line=2, cancelled=1, version=2),), reason=CancelReason.CUSTOMER),
    )
    await notifier.passes(WITHOUT_DATE)
    first, second = await queued(notifier.pool, 10)
    assert [mail.order for mail in (first, second)] == ["A-1", "B-1"]
    assert "later than Thursday, 10 December 2026" in first.body
    assert "being prepared" in second.subject
    await notifier.transactions.tell([MailSent(order=mail.order, number=mail.number) for mail in (first, second)])
    assert await notifier.violations() == {}
    assert await notifier.parked() == []
    assert await notifier.pool.fetchval("SELECT count(*) FROM runtime.timer") == 0


async def test_an_empty_database_reads_back_what_was_told(notifier: Notifier):
    story = (
        accepted("A-1"),
        accepted("B-1", name="Bob", email="bob@example.org"),
        backordered("A-1", change(3, line=1, backordered=3, ship_by=december(10), promise=1)),
        LineCancelled(order="A-1", at=NOON, lines=(change(1, line=2, cancelled=1, version=2),), reason=CancelReason.CUSTOMER),
        allocated("B-1", change(1, line=1, allocated=1)),
    )
    await notifier.hears(*story)
    await notifier.passes(DIGEST)
    await notifier.transactions.tell([MailSent(order=mail.order, number=mail.number) for mail in await queued(notifier.pool, 10)])
    told = [
        message for row in await notifier.pool.fetch("SELECT type, value FROM runtime.outbox ORDER BY seq")
        for _, message in decode(row["type"], NOTICES_EVENTS.name, row["value"])[0]
    ]  # fmt: skip
    notices = "SELECT order_id, number, line, kind, version, total, sku, units, ordered, ship_by FROM notice ORDER BY 1, 2, 3"
    mails = "SELECT order_id, number, mail_id, message_id, lines::text, status, attempts, sent_at, last_error FROM mail ORDER BY 1, 2"
    before = await notifier.pool.fetch(notices), await notifier.pool.fetch(mails)
    assert [len(rows) for rows in before] == [3, 2]

    await notifier.pool.execute("TRUNCATE correspondence, mail, notice, runtime.outbox, runtime.timer")
    assert SERVICE.read_back
    as_ever, notifier.transactions = notifier.transactions, replace(notifier.transactions, service=SERVICE.read_back)
    await notifier.hears(*told[:1])
    await notifier.hears(*told[1:])
    assert await notifier.parked() == []
    notifier.transactions = as_ever
    await notifier.hears(*story)
    await notifier.passes(WITHOUT_DATE)
    assert (await notifier.pool.fetch(notices), await notifier.pool.fetch(mails)) == before
    assert await notifier.published() == []
    assert await notifier.violations() == {}
    assert await notifier.parked() == []


async def test_an_order_of_many_lines_and_many_orders_are_a_constant_number_of_statements(notifier: Notifier):
    counts = []
    for size in (1, 2, 200):
        context = Context(now=NOON, number=1, cause="", actor="", time=NOON, appended=NOON)
        orders = [f"{size}-{number}" for number in range(size)]
        lines = [change(3, line=line, backordered=3, ship_by=december(10), promise=1) for line in range(1, 4)]
        await notifier.hears(*(accepted(order) for order in orders))
        messages = [backordered(order, *lines) for order in orders]
        statements: list[Any] = []
        async with notifier.pool.acquire() as tx:
            tx.add_query_logger(statements.append)
            state = await store.load(tx, messages)
            for message in messages:
                SERVICE.routes[LineBackordered].handler(state, message, context)
            await store.save(tx, state, context)
            tx.remove_query_logger(statements.append)
        counts.append(len(statements))
    assert counts[1:] == [3, 3]  # the first also asked for the types of arrays


async def test_news_of_an_unknown_order_is_refused_and_the_rest_goes_on(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("X", change(1, allocated=1)), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    assert [mail.order for mail in await queued(notifier.pool, 10)] == ["A-1"]
    [detail] = await notifier.parked()
    assert "order 'X', which was never accepted" in detail


async def test_a_mail_refused_for_now_waits_and_holds_back_later_mails_of_its_order_only(notifier: Notifier):
    await notifier.hears(accepted("A-1"), accepted("B-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(order=mail.order, number=mail.number, reason="451 later", permanent=False)])
    await notifier.hears(
        LineShipped(order="A-1", at=NOON, lines=(change(1, shipped=1, version=2),), shipment="P-1"),
        allocated("B-1", change(1, allocated=1)),
    )
    await notifier.passes(DIGEST)
    assert [other.order for other in await queued(notifier.pool, 10)] == ["B-1"]
    row = await notifier.pool.fetchrow(
        "SELECT attempts, last_error, next_attempt_at > now() AS later FROM mail WHERE number = $1", mail.number
    )
    assert tuple(row or ()) == (1, "451 later", True)
    await notifier.pool.execute("UPDATE mail SET next_attempt_at = now()")
    assert [other.number for other in await queued(notifier.pool, 10) if other.order == "A-1"] == [mail.number]


async def test_a_mail_refused_for_good_is_told_and_is_not_sent_again(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(order=mail.order, number=mail.number, reason="550 unknown", permanent=True)])
    assert await queued(notifier.pool, 10) == []
    assert await notifier.published() == [("backorder.notifier.NoticeFailed.v1", str(mail_id(MailKey(mail.order, mail.number))))]
    assert await notifier.violations() == {}


async def test_a_mail_whose_outcome_could_not_be_recorded_is_not_sent_over_and_over(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(order=mail.order, number=mail.number, reason="550 \x00", permanent=True)])
    assert len(await notifier.parked()) == 1
    assert await queued(notifier.pool, 10) == []


async def test_the_database_refuses_a_second_notice_of_a_promise_version(notifier: Notifier):
    await notifier.hears(accepted("A-1"), backordered("A-1", change(3, backordered=3, ship_by=december(10), promise=1)))
    await notifier.passes(DIGEST)
    with pytest.raises(asyncpg.UniqueViolationError, match="notice_told"):
        await notifier.pool.execute(
            "INSERT INTO notice SELECT order_id, number + 1, line, 'date_changed', version, total, sku, units, ordered, since, at, carrier,"
            " tracking, reason, ship_by, was FROM notice"
        )


WAITS_ON = """
UPDATE correspondence AS c SET waiting = (
    SELECT json_build_array(json_build_array(line, kind, version, total, sku, units, ordered, since, since, at, '', '', NULL, ship_by, was))
    FROM notice n WHERE n.order_id = c.order_id AND kind = 'date_changed')
WHERE order_id = 'A-1';
"""
"""What was told waits still."""


@pytest.mark.parametrize(
    ("check", "harm"),
    [
        ("waiting_notices_have_their_timer", "DELETE FROM runtime.timer"),
        ("waiting_notices_have_their_timer", "UPDATE runtime.timer SET due = due + interval '1 second'"),
        ("gathering_took_all_that_was_due", f"{WAITS_ON} DELETE FROM notice WHERE kind = 'date_changed'"),
        ("what_waits_is_newer_than_what_was_told", WAITS_ON),
        ("one_word_of_a_level_waits", f"{WAITS_ON} UPDATE correspondence SET waiting = (waiting::jsonb || waiting::jsonb)::json"),
        ("mails_have_their_notices", "DELETE FROM notice WHERE kind = 'date_changed'"),
        ("notices_have_their_mail", "DELETE FROM mail WHERE number = (SELECT max(number) FROM mail)"),
        ("notices_have_their_mail", "UPDATE notice SET order_id = 'B-1' WHERE kind = 'date_changed'"),
        ("one_notice_per_fact", "DROP INDEX notice_told; INSERT INTO notice SELECT * FROM notice"),
        (
            "promises_are_told_in_order",
            "UPDATE notice SET version = 5 WHERE kind = 'backordered'",
        ),
        (
            "one_notice_per_promise_version",
            "DROP INDEX notice_told; UPDATE notice SET version = 1 WHERE order_id = 'A-1' AND kind = 'date_changed'",
        ),
    ],
)
async def test_the_audit_sees_harm(notifier: Notifier, check: str, harm: str):
    await notifier.hears(accepted("A-1"), accepted("B-1"), backordered("A-1", change(3, backordered=3, ship_by=december(10), promise=1)))
    await notifier.passes(DIGEST)
    await notifier.hears(promised("A-1", change(3, backordered=3, ship_by=december(12), promise=2)))
    await notifier.passes(DIGEST)
    for _ in range(2):
        await notifier.transactions.tell([MailSent(order=mail.order, number=mail.number) for mail in await queued(notifier.pool, 10)])
    await notifier.hears(backordered("B-1", change(3, backordered=3)))
    assert await notifier.violations() == {}
    await notifier.pool.execute(harm)
    assert check in await notifier.violations()


async def test_counts_and_queries_tell_no_personal_data(notifier: Notifier):
    await notifier.hears(
        accepted("A-1"),
        backordered("A-1", change(3, line=1, backordered=3, ship_by=december(10), promise=1), change(1, line=2, backordered=1)),
    )
    await notifier.passes(DIGEST)
    app = FastAPI()
    app.include_router(router(_edge(notifier)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://notifier") as client:
        answer = await client.get("/orders/A-1/notices")
        assert answer.status_code == 200
        assert [(n["line"], n["kind"], n["promise_version"], n["status"]) for n in answer.json()["notices"]] == [
            (1, "backordered", 1, "queued"),
            (2, "backordered", 0, "waiting"),
        ]
        assert "ann" not in answer.text.lower()
        assert (await client.get("/orders/X/notices")).status_code == 404
        assert (await client.get("/mails/summary")).json() == {"queued": 1, "sent": 0, "failed": 0}
    counts = {name: await notifier.pool.fetchval(count) for name, count in COUNTS.items()}
    assert counts == {"orders": 1, "notices_told": 1, "notices_waiting": 1, "mails": 1, "mails_sent": 0, "mails_failed": 0}
    assert CHECKS


def _edge(notifier: Notifier) -> Any:
    class Edge:
        pool = notifier.pool

    return Edge()
