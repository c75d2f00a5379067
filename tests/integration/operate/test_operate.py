"""What an operator's tools say about real databases and a real broker, with no service running."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from time import monotonic, monotonic_ns

import asyncpg
import pytest
from typer.testing import CliRunner

from deploy.local import system, views
from deploy.local.agreement import AGREEMENTS, SUMS
from deploy.local.audit import _readings, _settled_check, audit
from deploy.local.cli import app, dead_letters, quarantine, wishes
from deploy.local.errors import UserError
from deploy.local.publisher import Publication, Publisher
from deploy.local.settled import Unsettled, Waiting, declared, settled, wait_settled
from shared import db, requests
from shared import dead_letters as letters
from shared.clock import wall
from shared.settings import SERVICES, Settings
from shared.transaction import Transactions
from tests.contract.examples import AT, ORDER

TODAY = date(2025, 1, 2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "ANSWER_SECONDS", 0.3)


@pytest.fixture
async def at_rest(settings: Settings) -> Settings:
    """A system's topics and databases, as new."""
    await system.prepare(settings)
    return settings


async def run(settings: Settings, service: str, sql: str, *arguments: object) -> None:
    connection = await asyncpg.connect(settings.dsn(service))
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def park(settings: Settings, service: str, aggregate: str, body: bytes) -> None:
    await run(
        settings, service,
        'INSERT INTO runtime.dead_letter (state, reason, detail, aggregate, topic, partition, "offset", index, type, source, message_id, actor,'
        " time, appended, body, at) VALUES ('parked', 'handler_failed', 'broke', $1, 't', 0, 0, 0, 'T', 's', 'm', '', $2, $2, $3, $2)",
        aggregate, AT, body,
    )  # fmt: skip


async def claim(settings: Settings, sku: str, wanted: int, order: str = "A-1") -> None:
    """A line that waits, in inventory alone."""
    await run(
        settings, "inventory",
        "INSERT INTO demand (order_id, line, sku, wanted, shipped, served, refused, queue_class, queued_at, ordered_at, demand_version,"
        " ship_by, promise_version, version) VALUES ($3, 1, $1, $2, 0, 0, 0, 0, $4, $4, 7, '2025-01-01', 1, 8)",
        sku, wanted, order, AT,
    )  # fmt: skip
    await run(settings, "inventory", "INSERT INTO sku (sku, waiting, needed_by) VALUES ($1, $2, $3)", sku, wanted, AT)
    await run(
        settings, "inventory",
        "INSERT INTO ledger (sku, kind, on_hand, allocated, waiting, order_id, line, cause, number, at)"
        " VALUES ($1, 'backordered', 0, 0, $2, $3, 1, 'm', 8, $4)",
        sku, wanted, order, AT,
    )  # fmt: skip


async def test_a_new_system_is_settled_and_as_it_must_be(at_rest: Settings) -> None:
    outcome = await audit(at_rest, wait=5, today=TODAY)
    assert (outcome.ok, outcome.settled, outcome.violations()) == (True, True, [])
    assert {*AGREEMENTS, *SUMS, "everything has settled", "no promise lies in the past"} <= outcome.checks.keys()
    assert all(any(name.startswith(f"{service}: ") for name in outcome.checks) for service in SERVICES)


async def test_what_one_service_knows_alone_breaks_the_audit(at_rest: Settings) -> None:
    await claim(at_rest, "17", 3)
    outcome = await audit(at_rest, today=TODAY)
    assert not outcome.ok
    broken = {name for name, check in outcome.checks.items() if check.violations}
    assert broken == {
        "orders and inventory agree on every claim",
        "orders and inventory agree on what has shipped",
        "orders and inventory agree on what is served",
        "purchasing knows what is short",
        "every waiting unit is covered by supply or an exception",
        "no promise lies in the past",
    }
    [violation] = outcome.checks["orders and inventory agree on every claim"].violations
    assert violation["service"] == "inventory"
    assert violation["row"] == {"order_id": "A-1", "line": 1, "sku": "17", "demand_version": 7, "wanted": 3}
    assert violation["expected"] == "as orders has it: no such row"


async def test_what_is_parked_is_named_and_its_consequences_are_not(at_rest: Settings) -> None:
    await claim(at_rest, "17", 3)
    await park(at_rest, "purchasing", "sku:17", b'{"items": [{"sku": "17", "waiting": 3}]}')
    await park(at_rest, "orders", "order:A-1", b'{"items": [{"order": "A-1", "line": 1}]}')
    outcome = await audit(at_rest, today=TODAY)
    assert [violation["row"]["dead_letter"] for violation in outcome.violations()] == ["orders/1", "purchasing/1"]


async def broken(settings: Settings, service: str, aggregate: str) -> None:
    await run(
        settings, service,
        "INSERT INTO runtime.quarantine (aggregate, invariant, detail, since, right_until, number, message)"
        " VALUES ($1, 'it adds up', 'on_hand = 3, ledger = 4', $2, 7, 9, 'm-1')",
        aggregate, AT,
    )  # fmt: skip


async def test_what_is_quarantined_is_named_and_its_consequences_are_not(at_rest: Settings) -> None:
    await claim(at_rest, "17", 3)
    await broken(at_rest, "inventory", "sku:17")
    await broken(at_rest, "orders", "order:A-1")
    outcome = await audit(at_rest, today=TODAY)
    assert {violation["check"] for violation in outcome.violations()} == {"nothing is quarantined"}
    assert [(each["service"], each["row"]["aggregate"], each["row"]["message"]) for each in outcome.violations()] == [
        ("orders", "order:A-1", "m-1"), ("inventory", "sku:17", "m-1"),
    ]  # fmt: skip
    assert (await views.overview(at_rest))["quarantined"] == {"orders/order:A-1": "it adds up", "inventory/sku:17": "it adds up"}


async def test_what_is_quarantined_is_shown_with_what_waits_and_who_wished_what(at_rest: Settings) -> None:
    await broken(at_rest, "inventory", "sku:17")
    await broken(at_rest, "inventory", "sku:18")
    await park(at_rest, "inventory", "line:A-1/1", b"{}")
    await run(at_rest, "inventory", "UPDATE runtime.dead_letter SET waits_for = 'sku:17'")
    await run(at_rest, "inventory", "UPDATE runtime.quarantine SET released_at = $1 WHERE aggregate = 'sku:18'", AT)
    assert [(each["id"], each["waiting"]) for each in await views.quarantine(at_rest, SERVICES, released=False)] == [
        ("inventory/sku:17", 1)
    ]
    assert len(await views.quarantine(at_rest, ("inventory",), released=True)) == 2
    with pytest.raises(UserError, match="as soon as it runs"):
        await quarantine._ask(at_rest, "inventory", "sku:17", "ann", "the count was wrong", dry_run=False)
    assert (await settled(at_rest)).services["inventory"].requests == 1
    shown = await views.quarantined(at_rest, "inventory", "sku:17")
    assert [(each["number"], each["message"]) for each in shown["findings"]] == [(9, "m-1")]
    assert [(each["dead_letter"], each["aggregate"]) for each in shown["waiting"]] == [("inventory/1", "line:A-1/1")]
    assert [(each["actor"], each["reason"], each["repaired"]) for each in shown["repairs"]] == [("ann", "the count was wrong", None)]
    with pytest.raises(UserError, match="nothing was ever wrong with orders/order:A-1"):
        await views.quarantined(at_rest, "orders", "order:A-1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("repair", "inventory/sku:17"), "--why"),
        (("repair", "inventory/sku:17", "--why", " "), "say why"),
        (("repair", "sku:17", "--why", "w"), "expected service/kind:key"),
        (("show", "inventory/17"), "expected service/kind:key"),
        (("show", "warehouse/sku:17"), "there is no service 'warehouse'"),
        (("list", "--service", "warehouse"), "there is no service 'warehouse'"),
    ],
)
def test_a_wish_that_cannot_be_is_one_clear_line(
    at_rest: Settings, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(quarantine, "settings_of", lambda _: at_rest)
    result = CliRunner().invoke(app, ["quarantine", *arguments])
    assert result.exit_code != 0
    assert words in (str(result.exception) + result.output)


async def test_only_what_has_a_version_is_compared_while_messages_are_under_way(at_rest: Settings) -> None:
    await claim(at_rest, "17", 3)
    async with Publisher(at_rest) as publisher:
        await publisher.send(Publication(AT, ORDER, "A-1", "/clients/test"))
    outcome = await audit(at_rest, today=TODAY)
    assert (outcome.ok, outcome.settled) == (True, False)
    waited = await audit(at_rest, wait=0.1, today=TODAY)
    assert [violation["row"] for violation in waited.violations()] == [{"under way": "1 unread of commerce.orders"}]


async def test_what_goes_on_while_it_is_read_is_read_again(at_rest: Settings) -> None:
    looks = [Unsettled({"notifier": Waiting(number=number)}) for number in (1, 2, 2, 2)]
    following = iter(looks)

    async def look() -> Unsettled:
        return next(following)

    before, _, after = await _readings(at_rest, TODAY, look, monotonic() + 60)
    assert before == after == looks[-1]
    assert list(following) == []

    async def restless() -> Unsettled:
        return Unsettled({"notifier": Waiting(number=monotonic_ns())})

    before, _, after = await _readings(at_rest, TODAY, restless, monotonic())
    assert list(_settled_check(before, after).violations) == [
        {"service": "notifier", "row": {"under way": "it went on while it was looked at"}, "expected": "nothing under way"}
    ]


async def test_everything_that_is_under_way_is_counted(at_rest: Settings) -> None:
    now = datetime.now(UTC)
    async with Publisher(at_rest) as publisher:
        for number in range(3):
            await publisher.send(Publication(AT, ORDER, str(number), "/clients/test"))
    await run(at_rest, "inventory", "INSERT INTO runtime.timer VALUES ('Due', 'k', $1), ('Later', 'k', $2)", now, now + timedelta(days=1))
    await run(
        at_rest, "purchasing",
        "INSERT INTO runtime.outbox (topic, partition, id, type, time, causation, actor, value) VALUES ('t', 0, gen_random_uuid(), 'T', $1, '', '', '')",
        now,
    )  # fmt: skip
    await run(at_rest, "notifier", "INSERT INTO correspondence VALUES ('A-1', 'Ann', 'ann@example.com', 'en', 'UTC')")
    await run(
        at_rest, "notifier",
        "INSERT INTO mail (mail_id, number, order_id, recipient, subject, body, message_id, created_at, lines)"
        " VALUES (gen_random_uuid(), 1, 'A-1', 'ann@example.com', 's', 'b', 'm', $1, '[]')",
        now,
    )  # fmt: skip
    found = await settled(at_rest)
    assert str(found) == (
        "orders: 3 unread of commerce.orders; inventory: 1 timers due; purchasing: 1 unpublished; notifier: 1 mails queued"
    )  # fmt: skip


async def test_waiting_ends_when_the_last_record_has_been_applied(at_rest: Settings) -> None:
    async with Publisher(at_rest) as publisher:
        await publisher.send(Publication(AT, ORDER, "A-1", "/clients/test"))
    waiting = asyncio.create_task(wait_settled(at_rest, 30))
    await asyncio.wait([waiting], timeout=0.5)
    assert not waiting.done()
    await run(
        at_rest, "orders", "INSERT INTO runtime.partition SELECT 'commerce.orders', partition, 1 FROM generate_series(0, 3) AS partition"
    )
    assert not await waiting


async def test_views_of_a_new_system_are_empty(at_rest: Settings) -> None:
    found = await views.overview(at_rest)
    assert (found["orders"], found["settled"], found["waiting_longest"]) == (0, True, [])
    assert found["by_state"] == {name: {"lines": 0, "units": 0} for name in ("pending", "allocated", "backordered", "shipped", "cancelled")}
    assert await views.purchase_orders(at_rest, only_open=False) == await views.mails(at_rest) == []
    with pytest.raises(UserError, match="'A-1'"):
        await views.order(at_rest, "A-1")
    with pytest.raises(UserError, match="'17'"):
        await views.queue(at_rest, "17")


async def test_a_queue_shows_who_waits_in_order(at_rest: Settings) -> None:
    await claim(at_rest, "17", 3, order="A-2")
    await run(
        at_rest, "inventory",
        "INSERT INTO demand SELECT 'A-1', line, sku, 2, 0, 1, 0, 0, queued_at, ordered_at, 7, 8, NULL::date, 0 FROM demand WHERE order_id = 'A-2'",
    )  # fmt: skip
    found = await views.queue(at_rest, "17")
    assert [(row["order"], row["waiting"], row["ship_by"]) for row in found["queue"]] == [("A-1", 1, None), ("A-2", 3, date(2025, 1, 1))]


async def test_a_wish_stays_when_no_service_runs_to_grant_it(at_rest: Settings) -> None:
    await park(at_rest, "orders", "order:A-1", ORDER.model_dump_json().encode())
    with pytest.raises(UserError, match="as soon as it runs"):
        await dead_letters._ask(at_rest, "orders", 1, "replay", "ann")
    assert (await settled(at_rest)).services["orders"].requests == 1
    with pytest.raises(UserError, match="orders/2"):
        await dead_letters._ask(at_rest, "orders", 2, "replay", "ann")


async def test_a_database_that_is_not_there_is_one_clear_line(settings: Settings) -> None:
    with pytest.raises(UserError, match="backorder up"):
        await views.mails(settings)


async def test_a_discarded_order_leaves_no_row_that_was_only_locked(at_rest: Settings) -> None:
    await park(at_rest, "orders", "order:A-1", ORDER.model_dump_json().encode())
    await run(at_rest, "orders", "UPDATE runtime.dead_letter SET topic = $1, type = $2", ORDER.TOPIC.name, ORDER.TYPE)
    pool = await db.pool(at_rest, "orders")
    try:
        await letters.request(pool, 1, "discard", "ann")
        await requests.settle(Transactions(declared("orders", at_rest), at_rest, pool, wall))
        assert await pool.fetchval("SELECT result FROM runtime.dead_letter_request") == "discarded"
        assert await pool.fetch("SELECT * FROM orders") == []
    finally:
        await pool.close()


async def test_every_column_but_generated_ids_and_wall_times_says_what_the_state_is(at_rest: Settings) -> None:
    tables = (
        "SELECT table_name || '.' || column_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'migration'"
    )
    left_out: set[str] = set()
    for name in SERVICES:
        connection = await asyncpg.connect(at_rest.dsn(name))
        try:
            state = import_module(f"services.{name}.audit").STATE
            compared = {
                f"{table}.{column.name}" for table, sql in state.items() for column in (await connection.prepare(sql)).get_attributes()
            }
            left_out |= {row[0] for row in await connection.fetch(tables)} - compared
        finally:
            await connection.close()
    assert left_out == {"timeline.id", "ledger.id", "exception.id", "mail.next_attempt_at"}
