"""Loading and saving on a real PostgreSQL: what handlers decided is what the database holds, and the audit can see it broken."""

from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from services.notifier import store
from services.notifier.api import router
from services.notifier.app import service
from services.notifier.audit import CHECKS, COUNTS
from services.notifier.domain import WITHOUT_DATE
from services.notifier.handlers import MailFailed, MailSent
from services.notifier.store import queued
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
    assert await notifier.violations() == {"mails_sent": 1}

    await notifier.transactions.tell([MailSent(mail=mail.mail_id)])
    await notifier.transactions.tell([MailSent(mail=mail.mail_id)])
    assert await queued(notifier.pool, 10) == []
    assert await notifier.published() == [("backorder.notifier.NoticeSent.v1", str(mail.mail_id))]
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
    await notifier.transactions.tell([MailSent(mail=mail.mail_id) for mail in (first, second)])
    assert await notifier.violations() == {}
    assert await notifier.parked() == []
    assert await notifier.pool.fetchval("SELECT count(*) FROM runtime.timer") == 0


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


async def test_news_of_an_unknown_order_is_parked_and_the_rest_goes_on(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("X", change(1, allocated=1)), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    assert [mail.order for mail in await queued(notifier.pool, 10)] == ["A-1"]
    [detail] = await notifier.parked()
    assert "'X' has not been accepted" in detail


async def test_a_mail_refused_for_now_waits_and_holds_back_later_mails_of_its_order_only(notifier: Notifier):
    await notifier.hears(accepted("A-1"), accepted("B-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(mail=mail.mail_id, reason="451 later", permanent=False)])
    await notifier.hears(
        LineShipped(order="A-1", at=NOON, lines=(change(1, shipped=1, version=2),), shipment="P-1"),
        allocated("B-1", change(1, allocated=1)),
    )
    await notifier.passes(DIGEST)
    assert [other.order for other in await queued(notifier.pool, 10)] == ["B-1"]
    row = await notifier.pool.fetchrow(
        "SELECT attempts, last_error, next_attempt_at > now() AS later FROM mail WHERE mail_id = $1", mail.mail_id
    )
    assert tuple(row or ()) == (1, "451 later", True)
    await notifier.pool.execute("UPDATE mail SET next_attempt_at = now()")
    assert {other.mail_id for other in await queued(notifier.pool, 10) if other.order == "A-1"} == {mail.mail_id}


async def test_a_mail_refused_for_good_is_told_and_is_not_sent_again(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(mail=mail.mail_id, reason="550 unknown", permanent=True)])
    assert await queued(notifier.pool, 10) == []
    assert await notifier.published() == [("backorder.notifier.NoticeFailed.v1", str(mail.mail_id))]
    assert await notifier.violations() == {}


async def test_a_mail_whose_outcome_could_not_be_recorded_is_not_sent_over_and_over(notifier: Notifier):
    await notifier.hears(accepted("A-1"), allocated("A-1", change(1, allocated=1)))
    await notifier.passes(DIGEST)
    [mail] = await queued(notifier.pool, 10)
    await notifier.transactions.tell([MailFailed(mail=mail.mail_id, reason="550 \x00", permanent=True)])
    assert len(await notifier.parked()) == 1
    assert await queued(notifier.pool, 10) == []


async def test_the_database_refuses_a_second_notice_of_a_promise_version(notifier: Notifier):
    await notifier.hears(accepted("A-1"), backordered("A-1", change(3, backordered=3, ship_by=december(10), promise=1)))
    with pytest.raises(asyncpg.UniqueViolationError, match="notice_promise"):
        await notifier.pool.execute(
            "INSERT INTO notice SELECT order_id, line, 'date_changed', version, total, facts, since, due_at, superseded, mail_id FROM notice"
        )


@pytest.mark.parametrize(
    ("check", "harm"),
    [
        ("waiting_notices_have_their_timer", "DELETE FROM runtime.timer"),
        ("waiting_notices_have_their_timer", "UPDATE runtime.timer SET due = due + interval '1 second'"),
        ("gathering_took_all_that_was_due", "UPDATE notice SET mail_id = NULL WHERE kind = 'date_changed'"),
        ("mails_have_notices", "UPDATE notice SET mail_id = NULL WHERE order_id = 'A-1'"),
        ("notices_and_mails_share_their_order", "UPDATE notice SET mail_id = (SELECT mail_id FROM mail LIMIT 1) WHERE order_id = 'B-1'"),
        ("mails_sent", "UPDATE mail SET status = 'queued', sent_at = NULL"),
        (
            "promises_are_told_in_order",
            "UPDATE notice SET version = 5 WHERE kind = 'backordered' AND mail_id IS NOT NULL",
        ),
        (
            "one_notice_per_promise_version",
            "DROP INDEX notice_promise; UPDATE notice SET version = 1 WHERE order_id = 'A-1' AND kind = 'date_changed'",
        ),
    ],
)
async def test_the_audit_sees_harm(notifier: Notifier, check: str, harm: str):
    await notifier.hears(accepted("A-1"), accepted("B-1"), backordered("A-1", change(3, backordered=3, ship_by=december(10), promise=1)))
    await notifier.passes(DIGEST)
    await notifier.hears(promised("A-1", change(3, backordered=3, ship_by=december(12), promise=2)))
    await notifier.passes(DIGEST)
    for _ in range(2):
        await notifier.transactions.tell([MailSent(mail=mail.mail_id) for mail in await queued(notifier.pool, 10)])
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
    assert counts == {"orders": 1, "notices": 2, "notices_superseded": 0, "mails": 1, "mails_sent": 0, "mails_failed": 0}
    assert CHECKS


def _edge(notifier: Notifier) -> Any:
    class Edge:
        pool = notifier.pool

    return Edge()
