"""What a good team writes in a day with the same libraries: one message, one transaction with its rows locked, publish after commit.

FastStream and SQLAlchemy; the four services of the loop, each a process of its own. At least once, and no more: whoever dies between
commit and publication has lost what was to be published, and a repeated message counts twice.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from sqlalchemy import BigInteger, ForeignKey, Identity, Index, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from tests.bench import rival
from tests.bench.rival import EVENTS, ORDERS, RECEIPTS


class Base(DeclarativeBase):
    """All tables."""


class Order(Base):
    """An order of the shop."""

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    lines: Mapped[list["OrderLine"]] = relationship(order_by="OrderLine.line")


class OrderLine(Base):
    """A line of it."""

    __tablename__ = "order_line"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    quantity: Mapped[int]
    allocated: Mapped[int] = mapped_column(default=0)


class Stock(Base):
    """Units of a SKU that nobody has."""

    __tablename__ = "stock"
    sku: Mapped[str] = mapped_column(primary_key=True)
    free: Mapped[int]


class Backorder(Base):
    """Units of a line that wait, in the order of their ids."""

    __tablename__ = "backorder"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    order_id: Mapped[str]
    line: Mapped[int]
    sku: Mapped[str]
    open: Mapped[int]
    __table_args__ = (Index("backorder_queue", "sku", "id"),)


class PurchaseLine(Base):
    """What is bought of a SKU."""

    __tablename__ = "purchase_line"
    sku: Mapped[str] = mapped_column(primary_key=True)
    ordered: Mapped[int] = mapped_column(default=0)
    received: Mapped[int] = mapped_column(default=0)


class Notice(Base):
    """What a customer is to be told."""

    __tablename__ = "notice"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    order_id: Mapped[str]
    text: Mapped[str]


class Line(BaseModel):
    """A line as the shop sends it."""

    line: int
    sku: str
    quantity: int


class Customer(BaseModel):
    """Whom to write."""

    email: str


class OrderPlaced(BaseModel):
    """An order as the shop sends it."""

    order: str
    customer: Customer
    lines: list[Line]


class Demand(BaseModel):
    """What an order wants."""

    order: str
    lines: list[Line]


class AnsweredLine(BaseModel):
    """Units of a line set aside now, and units that wait."""

    line: int
    sku: str
    allocated: int
    waiting: int


class Answered(BaseModel):
    """What inventory answers, at first and when goods have come (`restocked`), and what is published of the order."""

    order: str
    restocked: bool = False
    lines: list[AnsweredLine]


class ReceivedLine(BaseModel):
    """Good units that arrived."""

    sku: str
    good: int


class GoodsReceived(BaseModel):
    """A receipt as the dock sends it."""

    receipt: str
    lines: list[ReceivedLine]


engine = create_async_engine(rival.DATABASE.replace("postgresql://", "postgresql+asyncpg://") or "postgresql+asyncpg://")
session = async_sessionmaker(engine, expire_on_commit=False)
broker = KafkaBroker(rival.KAFKA.split(","), acks="all", logger=None)


async def tell(topic: str, key: str, message: BaseModel) -> None:
    """Publishes a message under its key."""
    await broker.publish(message, rival.topic(topic), key=key.encode())


async def order_placed(placed: OrderPlaced) -> None:
    """Stores an order and asks inventory for it."""
    async with session.begin() as db:
        lines = [OrderLine(line=line.line, sku=line.sku, quantity=line.quantity) for line in placed.lines]
        db.add(Order(id=placed.order, email=placed.customer.email, lines=lines))
    await tell("orders.demand", placed.order, Demand(order=placed.order, lines=placed.lines))


async def demand_raised(demand: Demand) -> None:
    """Sets aside what is there, and lets the rest wait."""
    answered = []
    async with session.begin() as db:
        skus = {line.sku for line in demand.lines}
        rows = await db.scalars(select(Stock).where(Stock.sku.in_(skus)).order_by(Stock.sku).with_for_update())
        stock = {row.sku: row for row in rows}
        for line in demand.lines:
            units = min(line.quantity, stock[line.sku].free)
            stock[line.sku].free -= units
            if units < line.quantity:
                db.add(Backorder(order_id=demand.order, line=line.line, sku=line.sku, open=line.quantity - units))
            answered.append(AnsweredLine(line=line.line, sku=line.sku, allocated=units, waiting=line.quantity - units))
    await tell("inventory.answers", demand.order, Answered(order=demand.order, lines=answered))


async def answered(answer: Answered) -> None:
    """Stores what inventory answers and publishes it."""
    async with session.begin() as db:
        order = await db.scalar(select(Order).where(Order.id == answer.order).options(selectinload(Order.lines)).with_for_update())
        lines = {line.line: line for line in order.lines} if order else {}
        for told in answer.lines:
            lines[told.line].allocated += told.allocated
    await tell(EVENTS, answer.order, answer)


async def short(answer: Answered) -> None:
    """Buys what an order has to wait for."""
    waiting = {line.sku: line.waiting for line in answer.lines if line.waiting and not answer.restocked}
    if not waiting:
        return
    async with session.begin() as db:
        bought = await _locked(db, waiting)
        for sku, units in waiting.items():
            bought[sku].ordered += units


async def goods_received(receipt: GoodsReceived) -> None:
    """Books a receipt and passes it on."""
    async with session.begin() as db:
        bought = await _locked(db, {line.sku: line.good for line in receipt.lines})
        for line in receipt.lines:
            bought[line.sku].received += line.good
    await tell("purchasing.received", receipt.receipt, receipt)


async def _locked(db: AsyncSession, skus: Iterable[str]) -> dict[str, PurchaseLine]:
    """What is bought of these SKUs, a new line where there was none; nobody else changes them meanwhile."""
    wanted = sorted(skus)
    rows = await db.scalars(select(PurchaseLine).where(PurchaseLine.sku.in_(wanted)).order_by(PurchaseLine.sku).with_for_update())
    found = {row.sku: row for row in rows}
    for sku in wanted:
        if sku not in found:
            found[sku] = PurchaseLine(sku=sku, ordered=0, received=0)
            db.add(found[sku])
    return found


async def stock_received(receipt: GoodsReceived) -> None:
    """Serves who waits, first come, first served."""
    answers: dict[str, Answered] = {}
    async with session.begin() as db:
        good = {line.sku: line.good for line in receipt.lines}
        rows = await db.scalars(select(Stock).where(Stock.sku.in_(good)).order_by(Stock.sku).with_for_update())
        stock = {row.sku: row for row in rows}
        for sku, units in good.items():
            stock[sku].free += units
        queue = await db.scalars(select(Backorder).where(Backorder.sku.in_(good)).order_by(Backorder.id).with_for_update())
        for backorder in queue:
            units = min(backorder.open, stock[backorder.sku].free)
            if not units:
                continue
            stock[backorder.sku].free -= units
            backorder.open -= units
            if not backorder.open:
                await db.delete(backorder)
            line = AnsweredLine(line=backorder.line, sku=backorder.sku, allocated=units, waiting=backorder.open)
            answers.setdefault(backorder.order_id, Answered(order=backorder.order_id, restocked=True, lines=[])).lines.append(line)
    await asyncio.gather(*(tell("inventory.answers", order, answer) for order, answer in answers.items()))


async def told(answer: Answered) -> None:
    """Keeps what the customer is to be told."""
    async with session.begin() as db:
        text = "\n".join(f"{line.sku}: {line.allocated} are yours, {line.waiting} follow" for line in answer.lines)
        db.add(Notice(order_id=answer.order, text=text))


HANDLERS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "orders": {ORDERS: order_placed, "inventory.answers": answered},
    "inventory": {"orders.demand": demand_raised, "purchasing.received": stock_received},
    "purchasing": {"inventory.answers": short, RECEIPTS: goods_received},
    "notifier": {EVENTS: told},
}
"""Service → what it does with the messages of each topic."""


def group(service: str, name: str) -> str:
    """Every subscriber has a group of its own: members of one group that subscribe to different topics only disturb each other."""
    return f"{service}.{name}"


async def serve(service: str) -> None:
    """Runs one service: a subscriber per topic, a message at a time, acknowledged when all of it is done."""
    subscribers = [
        broker.subscriber(
            rival.topic(name),
            group_id=rival.topic(group(service, name)),
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        for name in HANDLERS[service]
    ]
    for handle, subscriber in zip(HANDLERS[service].values(), subscribers, strict=True):
        subscriber(handle)
    app = FastStream(broker, logger=None)

    @app.after_startup
    async def ready() -> None:
        await rival.ready([subscriber.consumer for subscriber in subscribers if subscriber.consumer])

    await app.run()


async def tables(stock: rival.Stock) -> None:
    """Makes the tables and books the opening stock."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with session.begin() as db:
        db.add_all(Stock(sku=sku, free=free) for sku, free in stock.items())
    await engine.dispose()


if __name__ == "__main__":
    groups = {group(service, name): (name,) for service, handlers in HANDLERS.items() for name in handlers}
    rival.main(tuple(HANDLERS), groups, tables, serve, uvloop.run)
