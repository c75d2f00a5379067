"""What an operator asks of a running system, answered from the services' databases as plain JSON-able objects."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from deploy.local.databases import connected, snapshot
from deploy.local.errors import UserError
from deploy.local.settled import settled
from shared.contracts.base import JsonObject
from shared.settings import SERVICES, Settings

_STATES = ("pending", "allocated", "backordered", "shipped", "cancelled")
_LINES = f"""
    SELECT count(DISTINCT order_id) AS orders, count(*) AS lines, coalesce(sum(ordered), 0) AS units,
           {", ".join(f"count(*) FILTER (WHERE {name} > 0) AS {name}_lines, coalesce(sum({name}), 0) AS {name}_units" for name in _STATES)}
    FROM line_amounts"""  # noqa: S608  (our own names)
_LONGEST = """
    SELECT order_id AS order, line, line.sku, backordered, placed_at, ship_by
    FROM line_amounts JOIN line USING (order_id, line) JOIN orders USING (order_id)
    WHERE backordered > 0 ORDER BY queued_at, order_id, line LIMIT 5"""
_AMOUNTS = """
    SELECT line, line.sku, unit_price, a.ordered, pending, allocated, backordered, a.shipped, a.cancelled, ship_by
    FROM line_amounts AS a JOIN line USING (order_id, line) WHERE order_id = $1 ORDER BY line"""
_BUYING = """
    SELECT (SELECT count(*) FROM purchase_order WHERE status = 'planned') AS planned,
           count(DISTINCT purchase_order) FILTER (WHERE status = 'issued') AS open,
           coalesce(sum(ordered - declined - closed_short - received) FILTER (WHERE status = 'issued'), 0)::bigint AS units_to_come,
           (SELECT count(*) FROM exception WHERE closed_at IS NULL) AS exceptions
    FROM purchase_order JOIN purchase_line USING (purchase_order) WHERE ordered > declined + closed_short + received"""
_DEAD = """
    SELECT count(*) FILTER (WHERE state = 'parked') AS parked, count(*) FILTER (WHERE state = 'refused') AS refused FROM runtime.dead_letter"""
_BROKEN = """
    SELECT aggregate, since, invariant, detail, right_until, number, message, released_at,
           (SELECT count(*) FROM runtime.dead_letter WHERE state = 'parked' AND waits_for = q.aggregate AND q.released_at IS NULL) AS waiting
    FROM runtime.quarantine AS q WHERE aggregate = coalesce($1, aggregate) ORDER BY id"""
_WAITING = """
    SELECT id, aggregate, type, message_id, at FROM runtime.dead_letter WHERE state = 'parked' AND waits_for = $1 ORDER BY id"""
_REPAIRS = """
    SELECT requested_at, actor, reason, dry_run, done_at, repaired, result FROM runtime.repair WHERE aggregate = $1 ORDER BY id"""
_QUEUE = """
    SELECT order_id AS order, line, wanted - served - refused AS waiting, wanted, served, queued_at, ordered_at, ship_by
    FROM demand WHERE sku = $1 AND wanted > served + refused ORDER BY queue_class, queued_at, order_id, line"""
_SKU = "SELECT sku, description, backorder, on_hand, allocated, on_hand - allocated AS free, waiting, next_date FROM sku WHERE sku = $1"
_SUPPLY = (
    "SELECT purchase_order, line, open, expected_on FROM supply WHERE sku = $1 AND open > 0 ORDER BY expected_on, purchase_order, line"
)
_PURCHASE_ORDERS = """
    SELECT purchase_order, supplier, currency, status, window_due, issued_at,
           jsonb_agg(jsonb_build_object(
               'line', line, 'sku', sku, 'ordered', ordered, 'received', received, 'declined', declined, 'closed_short', closed_short,
               'outstanding', ordered - declined - closed_short - received, 'unit_price', unit_price::text, 'expected_on', expected_on
           ) ORDER BY line) AS lines
    FROM purchase_order JOIN purchase_line USING (purchase_order)
    GROUP BY purchase_order HAVING NOT $1 OR bool_or(ordered > declined + closed_short + received) ORDER BY window_due, purchase_order"""
_MAILS = """
    SELECT mail_id AS mail, order_id AS order, recipient, subject, body, status, created_at, sent_at, attempts, last_error
    FROM mail WHERE $1::text IS NULL OR order_id = $1 ORDER BY created_at, number, order_id"""
_LETTER = 'id, state, reason, detail, aggregate, type, source, message_id, actor, topic, partition, "offset", index, at, closed_at'


async def overview(settings: Settings) -> JsonObject:
    """Lines by state, who waits longest, what is bought, what is under way, what could not be applied, and what is broken."""
    under_way = await settled(settings)
    async with snapshot(settings, "orders") as tx:
        counts = await _one(tx, _LINES)
        longest = await _all(tx, _LONGEST)
    async with snapshot(settings, "purchasing") as tx:
        buying = await _one(tx, _BUYING)
    async with snapshot(settings, "notifier") as tx:
        mails = {row["status"]: row["count"] for row in await tx.fetch("SELECT status, count(*) FROM mail GROUP BY status")}
    dead = await asyncio.gather(*(_dead(settings, name) for name in SERVICES))
    broken = await quarantine(settings, SERVICES, released=False)
    return {
        **{name: counts[name] for name in ("orders", "lines", "units")},
        "by_state": {name: {"lines": counts[f"{name}_lines"], "units": counts[f"{name}_units"]} for name in _STATES},
        "waiting_longest": longest,
        "purchase_orders": buying,
        "mails": {status: mails.get(status, 0) for status in ("queued", "sent", "failed")},
        "settled": not under_way,
        "under_way": {name: asdict(waiting) for name, waiting in under_way.services.items() if waiting},
        "dead_letters": dict(zip(SERVICES, dead, strict=True)),
        "quarantined": {each["id"]: each["invariant"] for each in broken},
    }


async def order(settings: Settings, order_id: str) -> JsonObject:
    """An order, its lines with their five amounts and promises, and all that was told about it. No personal data."""
    async with snapshot(settings, "orders") as tx:
        found = await tx.fetchrow(
            "SELECT order_id AS order, status, currency, placed_at, completed_at, errors FROM orders WHERE order_id = $1", order_id
        )
        if found is None:
            raise UserError(f"there is no order {order_id!r}; one that was only just sent shows a moment later")
        lines = await _all(tx, _AMOUNTS, order_id)
        timeline = await _all(tx, "SELECT at, type, data, cause FROM timeline WHERE order_id = $1 ORDER BY id", order_id)
    errors = orjson.loads(found["errors"]) if found["errors"] else []
    return {**found, "errors": errors, "lines": lines, "timeline": [{**entry, "data": orjson.loads(entry["data"])} for entry in timeline]}


async def queue(settings: Settings, sku: str) -> JsonObject:
    """A SKU's stock, who waits for it in the order in which they will be served, and what is coming."""
    async with snapshot(settings, "inventory") as tx:
        found = await tx.fetchrow(_SKU, sku)
        if found is None:
            raise UserError(f"nothing is known of SKU {sku!r}")
        return {**found, "queue": await _all(tx, _QUEUE, sku), "coming": await _all(tx, _SUPPLY, sku)}


async def purchase_orders(settings: Settings, *, only_open: bool) -> list[JsonObject]:
    """Purchase orders with their lines, oldest first; with `only_open` those from which units are still to come."""
    async with connected(settings, "purchasing") as connection:
        return [{**row, "lines": orjson.loads(row["lines"])} for row in await connection.fetch(_PURCHASE_ORDERS, only_open)]


async def mails(settings: Settings, order_id: str | None = None) -> list[JsonObject]:
    """The mails to customers as they are kept, oldest first."""
    async with connected(settings, "notifier") as connection:
        return await _all(connection, _MAILS, order_id)


async def dead_letters(settings: Settings, services: tuple[str, ...], *, closed: bool) -> list[JsonObject]:
    """What could not be applied, by service; with `closed` also what has been replayed, discarded or superseded since."""
    found: list[JsonObject] = []
    for name in services:
        async with connected(settings, name) as connection:
            rows = await connection.fetch(
                f"SELECT {_LETTER} FROM runtime.dead_letter WHERE $1 OR state IN ('parked', 'refused') ORDER BY id",  # noqa: S608
                closed,
            )
        found += [_letter(name, row) for row in rows]
    return found


async def dead_letter(settings: Settings, service: str, number: int) -> JsonObject:
    """One dead letter with headers and body."""
    async with connected(settings, service) as connection:
        row = await connection.fetchrow(f"SELECT {_LETTER}, headers, body FROM runtime.dead_letter WHERE id = $1", number)  # noqa: S608
    if row is None:
        raise UserError(f"there is no dead letter {service}/{number}")
    body = None if row["body"] is None else bytes(row["body"]).decode(errors="replace")
    return {**_letter(service, row), "headers": dict(orjson.loads(row["headers"])), "body": body}


async def quarantine(settings: Settings, services: tuple[str, ...], *, released: bool) -> list[JsonObject]:
    """What breaks an invariant, one entry for each that it breaks; with `released` also what was repaired since."""
    found: list[JsonObject] = []
    for name in services:
        async with connected(settings, name) as connection:
            found += [_broken(name, row) for row in await connection.fetch(_BROKEN, None)]
    return [each for each in found if released or each["released_at"] is None]


async def quarantined(settings: Settings, service: str, aggregate: str) -> JsonObject:
    """All that was ever found broken of an aggregate, which messages wait for its repair, and every repair that was asked for."""
    async with snapshot(settings, service) as tx:
        findings = [_broken(service, row) for row in await tx.fetch(_BROKEN, aggregate)]
        waiting = await _all(tx, _WAITING, aggregate)
        repairs = await _all(tx, _REPAIRS, aggregate)
    if not (findings or repairs):
        raise UserError(f"nothing was ever wrong with {service}/{aggregate}")
    letters = [{"dead_letter": f"{service}/{letter.pop('id')}", **letter} for letter in waiting]
    return {"findings": findings, "waiting": letters, "repairs": repairs}


def _broken(service: str, row: Mapping[str, Any]) -> JsonObject:
    found = dict(row)
    return {"id": f"{service}/{found.pop('aggregate')}", **found}


def _letter(service: str, row: Mapping[str, Any]) -> JsonObject:
    return {**row, "id": f"{service}/{row['id']}"}


async def _dead(settings: Settings, name: str) -> JsonObject:
    async with connected(settings, name) as connection:
        return await _one(connection, _DEAD)


async def _all(connection: Any, sql: str, *arguments: Any) -> list[JsonObject]:
    return [dict(row) for row in await connection.fetch(sql, *arguments)]


async def _one(connection: Any, sql: str) -> JsonObject:
    [row] = await _all(connection, sql)
    return row
