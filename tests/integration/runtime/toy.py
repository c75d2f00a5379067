"""Two services small enough to see through, on the real runtime: what is true of them is true of every service.

`toy` counts what each order asked for, tells every change (one `DemandSet` per message) and writes down what it told.
`listener` writes down what it heard. Neither is idempotent by itself: a message applied twice, lost or out of order shows.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from fastapi import APIRouter
from pydantic_extra_types.currency_code import ISO4217

from shared import db, migrate, topics
from shared.clock import wall
from shared.contracts.base import MAX_QUANTITY
from shared.contracts.commerce import COMMERCE_ORDERS, Customer, OrderCancelRequested, OrderedLine, OrderPlaced
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandRefused, DemandServed
from shared.contracts.orders import ORDERS_DEMAND, DemandSet
from shared.runtime import Runtime
from shared.service import Applicable, Connection, Context, Effect, Local, Refuse, Route, Schedule, Service, Timer
from shared.settings import Settings
from shared.transaction import Transactions

DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Reminder(Timer):
    """Due when the first order was placed, at once if that is past."""


class Remark(Local):
    """Something that the toy's own process has to say about an order."""

    key: str
    text: str


@dataclass
class Account:
    """What is known of one order: `told` and `heard` are stories, in order."""

    units: int = 0
    reminded: bool = False
    told: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)


State = dict[str, Account]


class Faults(set[str]):
    """Bugs that are there until a test mends them, by what they break."""

    def strike(self, name: str) -> None:
        if name in self:
            raise ZeroDivisionError(f"a bug in {name}")


FAULTS = Faults()


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """Locks and loads the accounts of these messages."""
    names = sorted({_name(message) for message in messages})
    await tx.execute("INSERT INTO account SELECT n FROM unnest($1::text[]) n ORDER BY n ON CONFLICT DO NOTHING", names)
    rows = await tx.fetch("SELECT * FROM account WHERE name = ANY($1) ORDER BY name FOR UPDATE", names)
    return {row["name"]: Account(row["units"], row["reminded"], json.loads(row["told"]), json.loads(row["heard"])) for row in rows}


async def save(tx: Connection, state: State, _context: Context) -> None:
    """Writes them back."""
    await tx.execute(
        "UPDATE account a SET units = u.units, reminded = u.reminded, told = u.told, heard = u.heard"
        " FROM unnest($1::text[], $2::int[], $3::bool[], $4::jsonb[], $5::jsonb[]) u (name, units, reminded, told, heard) WHERE a.name = u.name",
        list(state), [a.units for a in state.values()], [a.reminded for a in state.values()],
        [json.dumps(a.told) for a in state.values()], [json.dumps(a.heard) for a in state.values()],
    )  # fmt: skip


def placed(state: State, message: OrderPlaced, context: Context) -> Iterable[Effect]:
    """Adds up, tells the sum, and the first time sets a reminder."""
    if not state[message.order].units:
        yield Schedule(Reminder(key=message.order), max(message.placed_at, context.now))
    state[message.order].units += sum(line.quantity for line in message.lines)
    yield _tell(state, message.order, context)


def cancelled(state: State, message: OrderCancelRequested, context: Context) -> Iterable[Effect]:
    """Takes one unit off."""
    FAULTS.strike(message.request)
    if message.reason == "refuse me":
        yield Refuse("not_wanted", "you asked for it")
        return
    state[message.order].units -= 1
    yield _tell(state, message.order, context)


def remind(state: State, message: Reminder, _context: Context) -> Iterable[Effect]:
    """Notes that the timer fired; twice would be a bug."""
    FAULTS.strike(f"reminder {message.key}")
    assert not state[message.key].reminded, f"{message.key} reminded twice"
    state[message.key].reminded = True
    return ()


def served(state: State, message: DemandServed, _context: Context) -> Iterable[Effect]:
    """Writes down a level."""
    FAULTS.strike(f"served {message.order}/{message.line}={message.served}")
    state[message.order].heard.append(f"served {message.line}={message.served}")
    return ()


def refused(state: State, message: DemandRefused, _context: Context) -> Iterable[Effect]:
    """Writes down a fact."""
    state[message.order].heard.append(f"refused {message.line}={message.quantity}")
    return ()


def remarked(state: State, message: Remark, context: Context) -> Iterable[Effect]:
    """Writes down what was said, and by which name effects would call it."""
    state[message.key].heard.append(f"{message.text}: {context.cause} at {context.time}")
    return ()


def heard(state: State, message: DemandSet, _context: Context) -> Iterable[Effect]:
    """Writes down what the toy told."""
    state[message.key].heard.append(f"{message.version}: {message.wanted}")
    return ()


def _tell(state: State, name: str, context: Context) -> DemandSet:
    account = state[name]
    account.told.append(f"{context.number}: {account.units}")
    return DemandSet(
        order=name, line=1, sku=name, wanted=min(max(0, account.units), MAX_QUANTITY), shipped=0, queued_at=context.appended, ordered_at=context.time,
        demand_version=context.number, version=context.number, causation=context.cause,
    )  # fmt: skip


def _name(message: Applicable) -> str:
    assert not isinstance(message, Local) or isinstance(message, Remark)
    return message.key


def _account(message: Applicable) -> str:
    return f"account:{_name(message)}"


TOY: Service[State] = Service(
    name="toy",
    topics=(INVENTORY_ALLOCATIONS, COMMERCE_ORDERS),
    routes={
        OrderPlaced: Route(placed, _account),
        OrderCancelRequested: Route(cancelled, _account),
        DemandServed: Route(served, _account),
        DemandRefused: Route(refused, _account),
        Reminder: Route(remind, lambda timer: f"reminder:{timer.key}"),
        Remark: Route(remarked, _account),
    },
    load=load,
    save=save,
    migrations=Path(__file__).parent / "migrations",
    api=lambda _edge: APIRouter(),
)

STATE = {"account": "SELECT * FROM account WHERE (units, reminded, told, heard) <> (0, false, '[]', '[]') ORDER BY name"}
"""What both mean, for a comparison: an account that was only ever locked says nothing."""

LISTENER: Service[State] = Service(
    name="listener",
    topics=(ORDERS_DEMAND,),
    routes={DemandSet: Route(heard, _account)},
    load=load,
    save=save,
    migrations=TOY.migrations,
    api=TOY.api,
)


async def prepare(settings: Settings) -> None:
    """Topics and databases of both."""
    await topics.create(settings)
    for service in (TOY, LISTENER):
        await migrate.migrate(settings, service.name, service.migrations)


@asynccontextmanager
async def running(settings: Settings, service: Service[State] = TOY) -> AsyncIterator[Runtime]:
    """A runtime in this process, stopped gracefully at the end."""
    pool = await db.pool(settings, service.name)
    runtime = Runtime(service, settings, pool)
    task = asyncio.create_task(runtime.run())
    try:
        yield runtime
    finally:
        runtime.stopping.set()
        await asyncio.wait_for(task, 30)
        pool.terminate()


@asynccontextmanager
async def transactions(settings: Settings, service: Service[State] = TOY) -> AsyncIterator[Transactions]:
    """What an owner of partitions applies batches with, without a broker or a loop around it."""
    pool = await db.pool(settings, service.name)
    yield Transactions(service, settings, pool, wall)
    await pool.close()


def order(name: str, *quantities: int, placed_at: datetime = DAY) -> OrderPlaced:
    """An order with lines of these quantities."""
    lines = tuple(OrderedLine(line=n, sku=f"S{n}", quantity=q, unit_price=Decimal(1)) for n, q in enumerate(quantities, 1))
    customer = Customer(id="C1", name="Ann", email="ann@example.com")
    return OrderPlaced(order=name, placed_at=placed_at, customer=customer, currency=ISO4217("EUR"), lines=lines)


def cancel(name: str, request: str, reason: str = "") -> OrderCancelRequested:
    """A request to take one unit off."""
    return OrderCancelRequested(request=request, order=name, reason=reason, requested_at=DAY)
