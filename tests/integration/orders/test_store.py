"""The store on a real PostgreSQL: what is saved is what the rules decided, and what is loaded is what was saved."""

import asyncio
import json
from datetime import date
from typing import Any

import asyncpg
import pytest

from services.orders.app import service
from services.orders.audit import CHECKS, COUNTS
from services.orders.domain import Line, Order
from services.orders.handlers import OrderInvalid
from services.orders.store import LINE_COLUMNS
from shared.contracts.base import ListedMessage, Message
from shared.contracts.orders import FieldError, LineShipped, OrderCompleted
from shared.service import Applicable
from shared.settings import Settings
from tests.integration.orders.conftest import StoredDesk
from tests.unit.orders.desk import ADA, NOON, Desk, cancel, of, placed, shipped
from tests.unit.orders.test_read_back import READ_BACK

SERVICE = service(Settings())

Pool = asyncpg.Pool
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
WRONG = (FieldError(field="lines.0.quantity", error="must be at least 1"),)


async def lines_of(pool: "Pool[Any]") -> list[Line]:
    return [Line(*row) for row in await pool.fetch(f"SELECT {', '.join(LINE_COLUMNS)} FROM line ORDER BY order_id, line")]


async def orders_of(pool: "Pool[Any]") -> list[Order]:
    rows = await pool.fetch(
        "SELECT order_id, placed_at, queued_at, content, open_lines, completed_at FROM orders WHERE status = 'accepted' ORDER BY 1"
    )
    return [Order(*row) for row in rows]


async def violations(pool: "Pool[Any]") -> dict[str, list[Any]]:
    found = {name: await pool.fetch(check) for name, check in CHECKS.items()}
    return {name: rows for name, rows in found.items() if rows}


async def a_full_story(desk: StoredDesk) -> Desk:
    """Tells the database and a desk in memory the same; answers the latter."""
    memory = Desk()

    async def both(*messages: Applicable) -> None:
        await desk.store(*messages)
        memory.tell(*messages)
        memory.heard.append(messages)

    await both(placed("A", 5, 2), placed("B", 1), placed("D", 7))
    await both(memory.served(2, ship_by=date(2026, 4, 1), promise_version=3), memory.served(1, order="B"), memory.unavailable(2, line=2))
    await both(shipped("p1", (1, 1), (2, 9)), shipped("p1", (1, 1), order="B"), cancel("r1", "A", 1, 1), placed("C", 3), cancel("r1", "C"))
    await both(memory.served(3), cancel("r2", "D"), cancel("r9", "unknown"), OrderInvalid(order="E", errors=WRONG))
    await both(memory.served(4), shipped("p2", (1, 2)), shipped("p1", (1, 1), (2, 9)), cancel("r1", "A", 1, 1))
    return memory


async def test_the_database_keeps_what_the_rules_decided(desk: StoredDesk, database: "Pool[Any]") -> None:
    memory = await a_full_story(desk)
    assert desk.sent == memory.sent
    assert desk.refused == memory.refused
    assert await lines_of(database) == [line for _, lines in sorted(memory.state.lines.items()) for _, line in sorted(lines.items())]
    assert await orders_of(database) == [order for _, order in sorted(memory.state.orders.items())]
    assert await violations(database) == {}
    assert [await database.fetchval(count) for count in COUNTS.values()] == [5, 5, len(_told(memory))]


def _told(desk: Desk) -> list[Any]:
    return [send for send in desk.sent if not isinstance(send.message, ListedMessage)]


async def test_a_restored_database_reads_back_what_was_told(desk: StoredDesk, database: "Pool[Any]") -> None:
    """Whatever share of the story stands in the backup."""
    lost = await a_full_story(desk)
    for kept in range(len(lost.heard) + 1):
        await database.execute("TRUNCATE orders, line, timeline, cancellation, shipment")
        memory, stored = Desk(), StoredDesk(database)
        for messages in lost.heard[:kept]:
            memory.tell(*messages)
            await stored.store(*messages)
        told = [send.message for send in lost.sent[len(memory.sent) :]]
        heard = [message for messages in lost.heard[kept:] for message in messages]
        memory.number = stored.number = 5000
        for topic in READ_BACK.topics:
            read = [message for message in (*told, *heard) if isinstance(message, Message) and message.TOPIC is topic]
            read = [message for message in read if type(message) in READ_BACK.routes]
            sent = memory.tell(*read, service=READ_BACK)
            await stored.store(*read, service=READ_BACK)
            assert not sent
        assert stored.sent == memory.sent
        assert stored.timers == memory.timers
        memory.tell(*memory.timers.values())
        await stored.store(*stored.timers.values())
        assert stored.sent == memory.sent
        assert await lines_of(database) == [line for _, lines in sorted(memory.state.lines.items()) for _, line in sorted(lines.items())]
        assert await orders_of(database) == [order for _, order in sorted(memory.state.orders.items())]
        assert await violations(database) == {}


async def test_the_timeline_holds_every_event_without_the_customer(desk: StoredDesk, database: "Pool[Any]") -> None:
    memory = await a_full_story(desk)
    rows = await database.fetch("SELECT order_id, type, cause, data FROM timeline ORDER BY id")
    assert [(row["order_id"], row["type"], row["cause"]) for row in rows] == [
        (send.message.key, type(send.message).__name__, send.cause) for send in _told(memory)
    ]
    assert all("customer" not in json.loads(row["data"]) and ADA.email not in row["data"] for row in rows)
    [customer] = await database.fetch("SELECT DISTINCT customer_id, customer_name, customer_email FROM orders WHERE status = 'accepted'")
    assert tuple(customer) == (ADA.id, ADA.name, ADA.email)


async def test_a_fact_is_known_again_in_a_later_transaction(desk: StoredDesk, database: "Pool[Any]") -> None:
    await a_full_story(desk)
    before, sent = await lines_of(database), len(desk.sent)
    await desk.store(placed("A", 5, 2), shipped("p2", (1, 2)), cancel("r1", "A", 1, 1), cancel("r2", "D"))
    assert (await lines_of(database), len(desk.sent)) == (before, sent)


async def test_nothing_is_left_of_what_was_not_applied(desk: StoredDesk, database: "Pool[Any]") -> None:
    await desk.store(cancel("r1", "?"), shipped("p1", (1, 1), order="?"))
    await desk.store(placed("A", 1), OrderInvalid(order="B", errors=WRONG), applied=())
    assert await database.fetch("SELECT order_id FROM orders") == []
    assert await database.fetch("SELECT order_id FROM cancellation UNION SELECT order_id FROM shipment") == []


async def test_a_rejected_order_is_kept_with_its_errors_until_it_comes_right(desk: StoredDesk, database: "Pool[Any]") -> None:
    await desk.store(OrderInvalid(order="A", errors=WRONG))
    [row] = await database.fetch("SELECT status, errors FROM orders")
    assert (row["status"], json.loads(row["errors"])) == ("rejected", [WRONG[0].model_dump()])
    await desk.store(placed("A", 5), OrderInvalid(order="A", errors=WRONG))
    [row] = await database.fetch("SELECT status, errors, placed_at FROM orders")
    assert tuple(row) == ("accepted", None, NOON)
    assert await violations(database) == {}


async def test_two_that_place_the_same_order_take_turns(desk: StoredDesk, database: "Pool[Any]") -> None:
    other = StoredDesk(database)
    other.number = 2000
    async with database.acquire() as tx, tx.transaction():
        state = await SERVICE.load(tx, [placed("A", 5)])
        second = asyncio.create_task(other.store(placed("A", 5), cancel("r1", "A", 1, 2)))
        async with asyncio.timeout(10):
            while not await database.fetchval(WAITING):
                pass
        desk.apply(state, [placed("A", 5)])
        await SERVICE.save(tx, state, desk.context)
    await second
    [line] = await lines_of(database)
    assert (line.ordered, line.cancelled) == (5, 2)
    assert [type(send.message).__name__ for send in other.sent] == ["LineCancelled", "DemandSet"]


async def test_the_number_of_statements_does_not_grow_with_the_batch(database: "Pool[Any]") -> None:
    async def statements(count: int) -> int:
        desk, seen = StoredDesk(database), []
        ids = [f"N{count}-{number}" for number in range(count)]
        async with database.acquire() as connection:
            with connection.query_logger(lambda query: seen.append(query.query)):
                for messages in (
                    [placed(order, 5) for order in ids],
                    [shipped("p", (1, 1), order=order) for order in ids] + [cancel("r", order, 1, 1) for order in ids],
                ):
                    async with connection.transaction():
                        state = await SERVICE.load(connection, messages)
                        desk.apply(state, messages)
                        await SERVICE.save(connection, state, desk.context)
        return len(seen)

    await statements(2)  # the driver asks the server about types once
    assert await statements(1) == await statements(30)


async def test_a_completed_order_says_when(desk: StoredDesk, database: "Pool[Any]") -> None:
    await desk.store(placed("A", 1))
    await desk.store(desk.served(1))
    await desk.store(shipped("p1", (1, 1)))
    assert await database.fetchval("SELECT completed_at FROM orders") == desk.context.now
    assert len(of(LineShipped, [send.message for send in desk.sent])) == len(desk.sent_of(OrderCompleted)) == 1


BROKEN = {
    "an order's counter of open lines is right": "UPDATE orders SET open_lines = open_lines + 1 WHERE order_id = 'A'",
    "an order is completed exactly when nothing of it is open, and says so once": "UPDATE orders SET completed_at = now() WHERE order_id = 'A'",
    "an order's lines are those that were accepted": "UPDATE line SET sku = 'other' WHERE order_id = 'A'",
    "an order is accepted once": "DELETE FROM timeline WHERE type = 'OrderAccepted' AND order_id = 'A'",
    "no two events of a line have the same version": (
        "INSERT INTO timeline (order_id, at, type, data, cause) SELECT order_id, at, type, data, cause FROM timeline WHERE type = 'LineAllocated'"
    ),
    "a line's version is that of its last event": "UPDATE line SET version = version + 1 WHERE order_id = 'A'",
    "the amounts last told of a line are its amounts": "UPDATE line SET served = shipped WHERE order_id = 'A'",
    "the quantities told as shipped and cancelled add up to the line's": "DELETE FROM timeline WHERE type = 'LineShipped' AND order_id = 'A'",
    "every line belongs to an accepted order": "DELETE FROM orders WHERE order_id = 'A'",
    "no stub is left behind": "INSERT INTO orders (order_id) VALUES ('stub')",
    "everything told names its cause": "UPDATE timeline SET cause = ''",
    # These two are also constraints, which have to go first.
    "no line is served more than it wants": (
        "ALTER TABLE line DROP CONSTRAINT line_check1; UPDATE line SET served = ordered + 1 WHERE order_id = 'A'"
    ),
    "a line's five amounts are not negative and add up to what was ordered": (
        "ALTER TABLE line DROP CONSTRAINT line_check; ALTER TABLE line DROP CONSTRAINT line_check1;"
        "UPDATE line SET cancelled = ordered + 1 WHERE order_id = 'A'"
    ),
}


def test_every_check_of_the_audit_has_its_break() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize("check", BROKEN)
async def test_the_audit_sees_what_is_broken(desk: StoredDesk, database: "Pool[Any]", check: str) -> None:
    await a_full_story(desk)
    assert await database.fetch(CHECKS[check]) == []
    await database.execute(BROKEN[check])
    assert await database.fetch(CHECKS[check]) != []
