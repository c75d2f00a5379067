"""Commands that show what is going on: the system at a glance, an order, a queue, purchase orders, mails."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from deploy.local import views
from deploy.local.cli.output import answer, moment, say, show
from deploy.local.cli.running import HERE, HomeOption, JsonOption, settings_of
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared.contracts.base import JsonObject


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for name, command in (
        ("overview", overview),
        ("order", order),
        ("queue", queue),
        ("purchase-orders", purchase_orders),
        ("mails", mails),
    ):
        app.command(name)(command)


def overview(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Show the system at a glance: lines by state, who waits longest, what is bought, what is under way, dead letters, what is broken."""
    settings = settings_of(Home(home))
    found = wait_for(views.overview(settings))
    if json:
        answer(found)
        return
    say(f"{found['orders']} orders, {found['lines']} lines, {found['units']} units")
    show(("", "lines", "units"), [(name, part["lines"], part["units"]) for name, part in found["by_state"].items()])
    if found["waiting_longest"]:
        say("\nWaiting longest")
        _lines(found["waiting_longest"], ("order", "line", "sku", "backordered", "placed_at", "ship_by"), settings.zone)
    buying = found["purchase_orders"]
    say(f"\nPurchase orders: {buying['open']} open with {buying['units_to_come']} units to come, {buying['planned']} planned")
    if buying["exceptions"]:
        say(f"Needs that no supplier covers: {buying['exceptions']}")
    say("Mails: " + ", ".join(f"{count} {status}" for status, count in found["mails"].items()))
    say(
        "Under way: "
        + ("nothing" if found["settled"] else ", ".join(f"{name} {_waiting(part)}" for name, part in found["under_way"].items()))
    )
    dead = {name: part for name, part in found["dead_letters"].items() if any(part.values())}
    say(
        "Dead letters: "
        + (", ".join(f"{name} {part['parked']} parked, {part['refused']} refused" for name, part in dead.items()) or "none")
    )
    for name, invariant in found["quarantined"].items():
        say(f"Quarantined: {name}, which breaks: {invariant}")


def order(
    order_id: Annotated[str, typer.Argument(metavar="ID", help="The shop's order id.")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Show an order: its lines with their five amounts and promise, and all that was told about it."""
    settings = settings_of(Home(home))
    found = wait_for(views.order(settings, order_id))
    if json:
        answer(found)
        return
    placed = f", placed {moment(found['placed_at'], settings.zone)}" if found["placed_at"] else ""
    done = f", completed {moment(found['completed_at'], settings.zone)}" if found["completed_at"] else ""
    say(f"Order {found['order']}: {found['status']}{placed}{done}")
    for error in found["errors"]:
        say(f"  {error['field']}: {error['error']}")
    if found["lines"]:
        say()
        _lines(
            found["lines"],
            ("line", "sku", "ordered", "pending", "allocated", "backordered", "shipped", "cancelled", "ship_by"),
            settings.zone,
        )
    say()
    show(("time", "what", ""), [(moment(entry["at"], settings.zone), entry["type"], _told(entry["data"])) for entry in found["timeline"]])


def queue(sku: Annotated[str, typer.Argument(help="The SKU.")], home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Show who waits for a SKU, in the order in which they will be served, and what is promised and coming."""
    settings = settings_of(Home(home))
    found = wait_for(views.queue(settings, sku))
    if json:
        answer(found)
        return
    say(f"{found['sku']} {found['description']}: {found['on_hand']} on hand, {found['allocated']} set aside, {found['waiting']} waiting")
    if found["queue"]:
        _lines(found["queue"], ("order", "line", "waiting", "wanted", "served", "ordered_at", "ship_by"), settings.zone)
    if found["coming"]:
        say("\nComing")
        _lines(found["coming"], ("purchase_order", "line", "open", "expected_on"), settings.zone)


def purchase_orders(
    only_open: Annotated[bool, typer.Option("--open", help="Only those from which units are still to come.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Show purchase orders with what was ordered, received, declined and is still to come."""
    settings = settings_of(Home(home))
    found = wait_for(views.purchase_orders(settings, only_open=only_open))
    if json:
        answer(found)
        return
    rows = [
        {**line, **{name: header[name] for name in ("purchase_order", "status", "issued_at")}}
        for header in found
        for line in header["lines"]
    ]
    columns = (
        "purchase_order",
        "status",
        "issued_at",
        "line",
        "sku",
        "ordered",
        "outstanding",
        "received",
        "declined",
        "closed_short",
        "expected_on",
    )
    _lines(rows, columns, settings.zone)


def mails(
    order_id: Annotated[str | None, typer.Option("--order", help="Only those about this order.")] = None,
    body: Annotated[bool, typer.Option("--body", help="Show the text too.")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Show the mails to customers: to whom, about what, when, and what became of them."""
    settings = settings_of(Home(home))
    found = wait_for(views.mails(settings, order_id))
    if json:
        answer(found)
        return
    if not body:
        _lines(found, ("created_at", "order", "recipient", "subject", "status"), settings.zone)
        return
    for mail in found:
        sent = f"{mail['status']} {moment(mail['sent_at'], settings.zone)}".strip()
        say(
            f"To: {mail['recipient']}\nSubject: {mail['subject']}\nOrder: {mail['order']} ({sent})\n\n{mail['body'].rstrip()}\n\n{'-' * 72}"
        )


def _lines(rows: list[JsonObject], columns: tuple[str, ...], zone: ZoneInfo) -> None:
    show([column.replace("_", " ") for column in columns], [[_shown(row[column], zone) for column in columns] for row in rows])


def _shown(value: Any, zone: ZoneInfo) -> Any:
    return moment(value, zone) if isinstance(value, datetime) else value


def _waiting(part: Mapping[str, Any]) -> str:
    unread = sum(part["lag"].values())
    return ", ".join(f"{count} {name}" for name, count in {"unread": unread, **part}.items() if name != "lag" and count)


def _told(data: Mapping[str, Any]) -> str:
    """What an event says, in a line or some."""
    lines = data.get("lines", ())
    parts = [_change(line) for line in lines] if lines else []
    parts += [f"{name} {data[name]}" for name in ("request", "reason", "shipment") if data.get(name)]
    return "\n".join([*parts, *(f"{error['field']}: {error['error']}" for error in data.get("errors", ()))])


def _change(line: Mapping[str, Any]) -> str:
    sku = f" ({line['sku']})" if "sku" in line else ""
    ship_by = f", ship by {line['ship_by']}" if line.get("ship_by") else ""
    return f"line {line['line']}{sku}: {line['quantity']}{ship_by}"
