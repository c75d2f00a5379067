"""Databases restored from backups behind the log, while suppliers, warehouse and customers have gone on: the system finds its way
back by itself, nobody is told anything twice, nothing is ordered twice, nothing is lost.

A whole server from a base backup, and each service's database alone while the others stand ahead.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner

from deploy.local import from_log, infrastructure, processes, system
from deploy.local.audit import audit
from deploy.local.cli import app
from deploy.local.home import Home
from deploy.local.mailbox import read_mails
from deploy.local.settled import wait_settled
from services.notifier.sender import ROUND_MAILS
from shared.contracts.notifier import NOTICES_EVENTS, NoticeSent
from shared.contracts.orders import (
    ORDERS_EVENTS,
    CancelRefused,
    LineCancelled,
    LineEvent,
    LineShipped,
    OrderAccepted,
    OrderCompleted,
    OrderRejected,
)
from shared.contracts.purchasing import PURCHASING_ORDERS, PurchaseOrderIssued
from shared.settings import SERVICES
from tests.backup import base_backup, copy_database, restore_base_backup
from tests.flows.conftest import FAST
from tests.flows.outside import Outside, eventually, outside
from tests.flows.trade import Trade, trading

OPENING = 6
"""Units of each SKU at first; whatever else is wanted has to be bought, by the piece."""
TOLD_ONCE = (ORDERS_EVENTS, PURCHASING_ORDERS, NOTICES_EVENTS)
"""Topics of facts: what stands in them twice was told twice."""
Strike: TypeAlias = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def home(servers: infrastructure.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A system with a database server of its own, which may be lost."""
    home = Home(Path(tmp_path_factory.mktemp("restore")))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(infrastructure.DATABASE, raising=False)
        try:
            system.up(home, namespace=f"r{home.state().cluster_id[-6:].lower().replace('-', '_')}", extra_env=FAST)
            yield home
        finally:
            system.down(home)
            infrastructure.delete(home)


@asynccontextmanager
async def traded(home: Home, story: str) -> AsyncIterator[Trade]:
    """The outside world, at work, with SKUs of this story's own."""
    async with outside(home) as world, trading(world, SKUS[story], LAST_SUPPLIERS, seed=sum(map(ord, story))) as trade:
        for sku in trade.skus:
            await world.stock(sku, OPENING, cheap=1, dear=1)
        yield trade


async def server_backed_up(home: Home, _world: Outside) -> Strike:
    """A base backup of the running server; and the loss of that server and of every process, and its restore."""
    backup = await asyncio.to_thread(base_backup, home)

    async def strike() -> None:
        for name in SERVICES:
            system.kill(home, f"{name}-1")
        await asyncio.to_thread(restore_base_backup, home, backup)
        for name in SERVICES:
            await asyncio.to_thread(system.start_service, home, f"{name}-1")

    return strike


async def database_backed_up(name: str, home: Home, world: Outside) -> Strike:
    """A copy of one service's database; and the loss of that database and of its service, and its restore, while the others go on."""
    url, database = world.settings.database_url, world.settings.database(name)
    await asyncio.to_thread(processes.stop, home, f"{name}-1")
    await copy_database(url, database, f"{database}_backup")
    await asyncio.to_thread(system.start_service, home, f"{name}-1")

    async def strike() -> None:
        system.kill(home, f"{name}-1")
        await copy_database(url, f"{database}_backup", database)
        await asyncio.to_thread(system.start_service, home, f"{name}-1")

    return strike


BACKUPS: dict[str, Callable[[Home, Outside], Awaitable[Strike]]] = {
    "server": server_backed_up,
    **{name: partial(database_backed_up, name) for name in SERVICES},
}
SKUS = {story: [f"{story}-{number}" for number in range(5)] for story in (*BACKUPS, "again")}
LAST_SUPPLIERS = dict.fromkeys(chain.from_iterable(SKUS.values()), "dear")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", ["server", *(pytest.param(name, marks=pytest.mark.slow) for name in SERVICES)])
async def test_a_backup_behind_the_log_is_caught_up_with(home: Home, lost: str) -> None:
    mailed = {mail.message_id for mail in read_mails(home.mail)}
    async with traded(home, lost) as trade:
        await trade.order(12)
        await trade.goes_on(issued=1, shipped=3)
        strike = await BACKUPS[lost](home, trade.world)
        await trade.order(8)
        await trade.goes_on(issued=1, shipped=3)
        await trade.order(8)
        await trade.cancel(2)
        await trade.goes_on(issued=1, shipped=5, completed=3, noticed=5)
        await trade.order(6)
        await strike()
        await trade.order(6)
        await check_settled(trade)
        await check_orders(trade)
        await check_purchases(trade)
        await check_events(trade)
        await check_mails(trade, mailed, lost=lost in {"server", "notifier"})


@pytest.mark.timeout(300)
async def test_what_is_read_again_by_command_has_no_second_effect(home: Home) -> None:
    mailed, began = {mail.message_id for mail in read_mails(home.mail)}, datetime.now(UTC) - timedelta(seconds=1)
    command = ["rewind", "--to", began.isoformat(), "--yes", "--json", "--home", str(home.path)]
    async with traded(home, "again") as trade:
        await trade.order(8)
        await trade.goes_on(issued=1, shipped=8)
        await check_settled(trade)
        told = [len(await trade.world.messages(topic.name)) for topic in TOLD_ONCE]
        refused = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert "orders runs (orders-1): stop every instance of it first" in str(refused.exception)
        for name in SERVICES:
            system.kill(home, f"{name}-1")
        done = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert done.exit_code == 0, done.output
        assert {move["service"] for move in json.loads(done.stdout)["moves"]} == {*SERVICES}
        for name in SERVICES:
            await asyncio.to_thread(system.start_service, home, f"{name}-1")
        await check_settled(trade)
        assert [len(await trade.world.messages(topic.name)) for topic in TOLD_ONCE] == told
        await check_orders(trade)
        await check_purchases(trade)
        await check_mails(trade, mailed, lost=False)


async def check_settled(trade: Trade) -> None:
    """Everything comes to its end, as it must be, with nothing refused; and it follows from the log."""
    assert not await wait_settled(trade.world.settings, 120)

    async def all_told() -> bool:
        [row] = await trade.world.rows("notifier", "SELECT count(*) FROM runtime.timer WHERE due < now() + interval '1 hour'")
        return bool(row["count"] == 0)

    await eventually(all_told, "the digests")
    found = await audit(trade.world.settings, wait=30)
    assert found.ok, found.violations()
    letters = [
        (name, row["reason"], row["detail"])
        for name in SERVICES
        for row in await trade.world.rows(name, "SELECT reason, detail FROM runtime.dead_letter WHERE state IN ('refused', 'parked')")
    ]
    assert letters == []
    assert (replayed := found.including(await from_log.checks(trade.world.settings))).ok, replayed.violations()


async def check_orders(trade: Trade) -> None:
    """Every order is there, and what is wanted of it has shipped."""
    rows = await trade.world.rows("orders", "SELECT order_id, line, ordered, shipped, cancelled FROM line")
    lines = {(row["order_id"], row["line"]): row for row in rows}
    for order in trade.placed.values():
        for line in order.lines:
            row = lines[order.order, line.line]
            assert row["ordered"] == line.quantity == row["shipped"] + row["cancelled"]
            assert not row["cancelled"] or order.order in trade.cancelled


async def check_purchases(trade: Trade) -> None:
    """A number is one order, and no more was bought than was short (but for what was cancelled after it had been bought)."""
    issued = [message for message in await trade.world.messages(PURCHASING_ORDERS.name) if isinstance(message, PurchaseOrderIssued)]
    assert len({order.model_dump_json() for order in issued}) == len({order.purchase_order for order in issued})
    wanted = Counter(dict.fromkeys(trade.skus, -OPENING))
    for order in trade.placed.values():
        for line in order.lines:
            wanted[line.sku] += line.quantity
    cancelled = "SELECT sku, sum(cancelled)::int AS units FROM line GROUP BY sku"
    given_up = {row["sku"]: row["units"] for row in await trade.world.rows("orders", cancelled)}
    committed = "SELECT sku, sum(ordered - declined - closed_short)::int AS units FROM purchase_line GROUP BY sku"
    bought = {row["sku"]: row["units"] for row in await trade.world.rows("purchasing", committed)}
    for sku, units in wanted.items():
        assert units - given_up[sku] <= bought.get(sku, 0) <= max(0, units), sku


async def check_events(trade: Trade) -> None:
    """Nothing was told twice of an order, a line or a parcel, but under one id."""
    told = {message.model_dump_json(): message for message in await trade.world.messages(ORDERS_EVENTS.name)}.values()
    versions = Counter(
        (message.order, change.line, change.version) for message in told if isinstance(message, LineEvent) for change in message.lines
    )
    once = Counter((type(message), message.key) for message in told if isinstance(message, OrderAccepted | OrderCompleted | OrderRejected))
    parcels = Counter((message.order, message.shipment) for message in told if isinstance(message, LineShipped))
    wishes = Counter(
        (type(message), message.order, message.request) for message in told if isinstance(message, LineCancelled | CancelRefused)
    )
    for counted in (versions, once, parcels, wishes):
        assert set(counted.values()) == {1}
    assert {order for kind, order in once if kind is OrderCompleted} >= trade.placed.keys()


async def check_mails(trade: Trade, before: set[str], *, lost: bool) -> None:
    """Each notice was told once. Only mails that the lost database had sent without word getting out of it went out again."""
    told = {message.mail: message for message in await trade.world.messages(NOTICES_EVENTS.name) if isinstance(message, NoticeSent)}
    notices = Counter(
        (message.order, notice.line, notice.kind, notice.promise_version, notice.total)
        for message in told.values()
        for notice in message.notices
    )
    assert set(notices.values()) == {1}
    mails = [mail for mail in read_mails(trade.world.home.mail) if mail.message_id not in before]
    unknown = [mail for mail in mails if mail.message_id.strip("<>").partition("@")[0] not in told]
    repeated = len(unknown) + sum(mail.copies - 1 for mail in mails)
    assert repeated <= (ROUND_MAILS if lost else 0)
