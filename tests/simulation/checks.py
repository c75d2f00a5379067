"""What must be true of a world: at any time, whenever nothing is under way, and in the end.

The services' own audit and their agreements are the first part; the second is what only somebody can see who has watched
everything: the whole log, the story, and every trouble that was made. Each check answers rows; no row, no violation.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from deploy.local import fairness
from deploy.local.agreement import AGREEMENTS, FACTS, SUMS
from services.inventory.domain import HANDLING_DAYS
from shared.contracts.orders import (
    CancelRefused,
    LineCancelled,
    LineEvent,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
)
from shared.contracts.purchasing import PurchaseOrderIssued
from shared.settings import SERVICES
from tests.simulation.violation import ViolatedError
from tests.simulation.world import Letter, World

OWN = {service: dict(import_module(f"services.{service}.audit").CHECKS) for service in SERVICES}
_PAST = import_module("services.inventory.audit").PROMISE_IN_THE_PAST

Facts = Mapping[str, list[Any]]
Findings = dict[str, list[Any]]
"""Check → the rows that say that it does not hold."""


async def at_any_time(world: World, services: Iterable[str]) -> None:
    """Each service's own checks, on what is committed. Raises ViolatedError, as all of these."""
    _judged(await _own(world, services))


async def when_settled(world: World) -> None:
    """With nothing under way: the services' own checks, that they agree, and that no promise is too early."""
    _judged(await _settled(world, await read_facts(world)))


async def in_the_end(world: World) -> None:
    """Everything that was wanted has been done, once, in order, and everything else is explained."""
    facts = await read_facts(world)
    inventory = world.clusters["inventory"].database.eye
    _judged(
        await _settled(world, facts)
        | {title: list(check(world)) for title, check in _FROM_THE_LOG.items()}
        | {title: list(check(world, facts)) for title, check in _FROM_FACTS.items()}
        | {
            "no line overtakes another": list(fairness.unfair(tuple(row) for row in await inventory.fetch(fairness.ENTRIES))),
            "nothing is parked, and only poison is refused": await _letters(world),
            "nothing breaks but on purpose": await _broken(world),
            "no purchase order is issued before its window has closed": await _early_orders(world),
            "a mail is repeated only if its round was disturbed": list(_repeated_mails(world)),
        }
    )


async def read_facts(world: World) -> Facts:
    """What the services hold."""
    return {
        title: await world.clusters[service].database.eye.fetch(sql) for service, queries in FACTS.items() for title, sql in queries.items()
    }


def _judged(findings: Findings) -> None:
    if found := {title: rows for title, rows in findings.items() if rows}:
        raise ViolatedError(found)


async def _own(world: World, services: Iterable[str]) -> Findings:
    return {
        f"{service}: {title}": await world.clusters[service].database.eye.fetch(sql)
        for service in services
        for title, sql in OWN[service].items()
    }


async def _settled(world: World, facts: Facts) -> Findings:
    inventory = world.clusters["inventory"].database.eye
    return (
        await _own(world, SERVICES)
        | {title: list(agreement.violations(facts, settled=True)) for title, agreement in AGREEMENTS.items()}
        | {title: list(check(facts)) for title, (_, check) in SUMS.items()}
        | {
            "no promise lies in the past": await inventory.fetch(_PAST, world.now.date()),
            "a promise is no earlier than supply allows": await _too_early(world),
        }
    )


# --- promises ---

_QUEUE = """
    SELECT sku, order_id, line, wanted - served - refused AS open, ship_by FROM demand WHERE wanted > served + refused
    ORDER BY sku, queue_class, queued_at, order_id, line
"""
_SUPPLY = "SELECT sku, expected_on, open FROM supply WHERE open > 0 AND expected_on IS NOT NULL ORDER BY sku, expected_on"


async def _too_early(world: World) -> list[dict[str, Any]]:
    """Another way to say what `promises` says: by the day before its promise, as many units come as are claimed up to its place."""
    eye = world.clusters["inventory"].database.eye
    supplies = await eye.fetch(_SUPPLY)
    claimed: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    for row in await eye.fetch(_QUEUE):
        claimed[row["sku"]] += row["open"]
        if row["ship_by"] is not None:
            day = row["ship_by"] - timedelta(days=HANDLING_DAYS)
            coming = sum(supply["open"] for supply in supplies if supply["sku"] == row["sku"] and supply["expected_on"] <= day)
            if coming < claimed[row["sku"]]:
                found.append({**row, "claimed up to it": claimed[row["sku"]], "coming": coming})
    return found


# --- from the log alone ---


def _untimely(world: World) -> Iterator[Any]:
    """Each order is accepted first, and once; when it is completed nothing more is told of it."""
    accepted: set[str] = set()
    completed: set[str] = set()
    for delivery in world.log.deliveries("orders.events"):
        for _, message in delivery.messages:
            if not isinstance(message, OrderAccepted | LineEvent | OrderCompleted):
                continue
            if message.order in completed or (message.order in accepted) == isinstance(message, OrderAccepted):
                yield f"{type(message).__name__} of {message.order} at orders.events/{delivery.partition}[{delivery.offset}]"
            (completed if isinstance(message, OrderCompleted) else accepted).add(message.order)


def _out_of_order(world: World) -> Iterator[Any]:
    """Of each line newer versions come later."""
    versions: dict[tuple[str, int], int] = {}
    for delivery in world.log.deliveries("orders.events"):
        for _, message in delivery.messages:
            if not isinstance(message, LineEvent):
                continue
            for change in message.lines:
                line = message.order, change.line
                if change.version <= versions.get(line, 0):
                    where = f"{type(message).__name__} at orders.events/{delivery.partition}[{delivery.offset}]"
                    yield f"{where}: version {change.version} of line {line} after {versions[line]}"
                versions[line] = change.version


def _falling_levels(world: World) -> Iterator[Any]:
    """Each level's versions rise."""
    versions: dict[tuple[str, str], int] = {}
    for topic in ("orders.demand", "inventory.allocations", "inventory.shortages", "inventory.stock", "purchasing.supply"):
        for delivery in world.log.deliveries(topic):
            for index, message in delivery.messages:
                if message.level is not None and delivery.envelope.internal:
                    level = (message.TYPE, message.level)
                    if message.version <= versions.get(level, -1):  # type: ignore[attr-defined]  # every level has one
                        yield f"{topic}/{delivery.partition}[{delivery.offset}]#{index}: {message} after version {versions[level]}"
                    versions[level] = message.version  # type: ignore[attr-defined]


def _unexplained(world: World) -> Iterator[Any]:
    """Everything that a service tells names a message, a timer or a word of its own process as its cause."""
    causes = set(world.own_ids)
    for topic in {place[0] for place in world.log.places}:
        causes |= {delivery.envelope.id for delivery in world.log.deliveries(topic)}
    for topic in {place[0] for place in world.log.places} - {"notices.events"}:
        for delivery in world.log.deliveries(topic):
            if delivery.envelope.internal is None:
                continue
            for index, message in delivery.messages:
                cause = getattr(message, "causation", "") or world.log.cause(delivery)
                if cause.partition("#")[0] not in causes:
                    yield f"{topic}/{delivery.partition}[{delivery.offset}]#{index}: {message} is caused by {cause!r}"


def _ordered_twice(world: World) -> Iterator[Any]:
    """A purchase order goes out once."""
    issued = Counter(
        message.purchase_order
        for delivery in world.log.deliveries("purchasing.orders")
        for _, message in delivery.messages
        if isinstance(message, PurchaseOrderIssued)
    )
    yield from ({"purchase_order": order, "issued": times} for order, times in issued.items() if times > 1)


def _unanswered(world: World) -> Iterator[Any]:
    """Each order, good or bad, and each cancellation is answered."""
    told = [message for delivery in world.log.deliveries("orders.events") for _, message in delivery.messages]
    accepted = {message.order for message in told if isinstance(message, OrderAccepted)}
    yield from ({"order_id": order.order, "expected": "accepted"} for order in world.story.orders if order.order not in accepted)
    rejected = Counter(message.order for message in told if isinstance(message, OrderRejected))
    bad = {
        (bad.draft.key or b"").decode() for bad in world.poison if bad.kind == "a field is missing" and bad.place[0] == "commerce.orders"
    }
    yield from (
        {"order_id": order, "rejections": rejected[order]} for order in sorted(bad | rejected.keys()) if (order in bad) != rejected[order]
    )
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for delivery in world.log.deliveries("orders.events"):
        if any(isinstance(message, LineCancelled | CancelRefused) for _, message in delivery.messages):
            cause = world.log.cause(delivery)
            answers[world.again.get(cause, cause)].add(cause)
    for wish in world.story.cancellations:
        if len(found := answers[f"{wish.order}/{wish.request}"]) != 1:
            yield {"order_id": wish.order, "request": wish.request, "answered as": sorted(found), "expected": "one answer"}


_FROM_THE_LOG: dict[str, Callable[[World], Iterable[Any]]] = {
    "an order is accepted first and completed last": _untimely,
    "what is told of a line is in order": _out_of_order,
    "the versions of a level rise": _falling_levels,
    "everything told has a cause": _unexplained,
    "a purchase order is issued once": _ordered_twice,
    "every order and every cancellation is answered": _unanswered,
}


# --- from what the services hold ---


def _unfinished(world: World, facts: Facts) -> Iterator[Any]:
    """Ordered = shipped + cancelled; cancelled only because the customer asked, or the article may not wait."""
    plain = {article.sku for article in world.story.articles if article.plain}
    ordered = {(order.order, line.line): line.quantity for order in world.story.orders for line in order.lines}
    asked = _asked(world)
    for row in facts["orders' lines"]:
        key = row["order_id"], row["line"]
        cancelled = ordered.pop(key) - row["wanted"]
        if row["wanted"] != row["shipped"]:
            yield {**row, "expected": "everything wanted has shipped"}
        if row["sku"] in plain and cancelled > asked[key]:
            yield {**row, "cancelled": cancelled, "expected": f"at most {asked[key]}, as the customer asked"}
    yield from ({"order_id": order, "line": line, "expected": "a line"} for order, line in ordered)


def _asked(world: World) -> Counter[tuple[str, int]]:
    """Per line, how many units its customer asked to cancel."""
    asked: Counter[tuple[str, int]] = Counter()
    orders = {order.order: order for order in world.story.orders}
    for wish in world.story.cancellations:
        for line in orders[wish.order].lines:
            if wish.line in {None, line.line}:
                asked[wish.order, line.line] += wish.quantity or line.quantity
    return asked


def _overbought(world: World, facts: Facts) -> Iterator[Any]:
    """What is bought of an article is what was ordered beyond the opening stock; a line of a purchase order may round up to packs."""
    ordered, bought, lines = Counter[str](), Counter[str](), Counter[str]()
    for order in world.story.orders:
        for line in order.lines:
            ordered[line.sku] += line.quantity
    for row in facts["purchase lines"]:
        bought[row["sku"]] += row["committed"]
        lines[row["sku"]] += row["committed"] > 0
    asked = {line for line, units in _asked(world).items() if units}
    restless = {line.sku for order in world.story.orders for line in order.lines if (order.order, line.line) in asked}
    for article in world.story.articles:
        needed = max(0, ordered[article.sku] - article.opening)
        rounded = (max(article.pack, article.minimum) - 1) * lines[article.sku]
        if article.plain and (bought[article.sku] > needed + rounded or (article.sku not in restless and bought[article.sku] < needed)):
            yield {"sku": article.sku, "bought": bought[article.sku], "needed": needed, "rounded up by at most": rounded}


_FROM_FACTS: dict[str, Callable[[World, Facts], Iterable[Any]]] = {
    "everything wanted has shipped": _unfinished,
    "what is bought is what is needed": _overbought,
}


# --- dead letters, windows, mails ---

_LETTERS = """
    SELECT state, reason, detail, topic, partition, "offset", source, message_id, aggregate FROM runtime.dead_letter
    WHERE state IN ('parked', 'refused') ORDER BY id
"""


async def _letters(world: World) -> list[Any]:
    """One letter for each poison, or for each of its copies; none for anything else, but for what crossed a cancellation."""
    found: list[Any] = []
    letters: Counter[Letter] = Counter()
    by_id = {letter.identity for letter in world.letters}
    asked = {order for order, _ in _asked(world)}
    for service, cluster in world.clusters.items():
        for row in await cluster.database.eye.fetch(_LETTERS):
            crossed = row["reason"] == "shipped_more_than_allocated" and row["message_id"].partition("-")[0] in asked
            if row["state"] == "parked":
                found.append({"service": service, **row})
            elif not crossed:
                place = f"{row['topic']}/{row['partition']}[{row['offset']}]"
                letters[Letter(service, row["reason"], row["message_id"] if row["message_id"] in by_id else place)] += 1
    expected = Counter(world.letters)
    found += [
        {**letter._asdict(), "kept": letters[letter], "expected": expected[letter]}
        for letter in letters | expected
        if letters[letter] != expected[letter]
    ]
    return found


_BROKEN = """
    SELECT reason, detail, type, aggregate FROM runtime.dead_letter
    WHERE reason IN ('handler_failed', 'invariant_broken', 'quarantined') AND detail NOT LIKE 'ZeroDivisionError: a bug in %' ORDER BY id
"""


async def _broken(world: World) -> list[Any]:
    """What was ever parked, whatever became of it, that this world's bug is not to blame for."""
    return [{"service": service, **row} for service, cluster in world.clusters.items() for row in await cluster.database.eye.fetch(_BROKEN)]


async def _early_orders(world: World) -> list[Any]:
    sql = "SELECT purchase_order, issued_at, window_due FROM purchase_order WHERE issued_at < window_due"
    return list(await world.clusters["purchasing"].database.eye.fetch(sql))


def _repeated_mails(world: World) -> Iterator[Any]:
    for mail, times in Counter(world.mail_server.taken).items():
        if times > 1 + world.disturbed_mails:
            yield {"mail": mail, "sent": times, "disturbed rounds": world.disturbed_mails}
