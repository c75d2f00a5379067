"""The journal says exactly what was applied: the topics, applied once more by it, give the same state, whatever happened."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.local.audit import Check
from deploy.local.from_log import NotWholeError, check
from shared import journal, requests
from shared.codec import Delivery, Flaw, partition_of
from shared.contracts.commerce import COMMERCE_ORDERS
from shared.contracts.inventory import INVENTORY_ALLOCATIONS, DemandServed
from shared.items import Item
from shared.journal import Own, Run
from shared.settings import Settings
from shared.transaction import Transactions
from tests.integration.runtime import toy
from tests.integration.runtime.broker import admin, append, deliveries, publish, raw, tell
from tests.integration.runtime.observe import eventually, query, stories


async def replayed(settings: Settings) -> Check:
    """What a replay of the toy's log finds."""
    return await check(settings, toy.TOY, toy.STATE)


async def same(settings: Settings) -> None:
    """A replay of the toy's log gives the toy's state, which is not nothing."""
    found = await replayed(settings)
    assert found.violations == []
    assert found.checked > 0


async def everything(settings: Settings) -> list[Delivery]:
    """Every record that the toy reads, in the order of a batch."""
    return [*await deliveries(settings, INVENTORY_ALLOCATIONS), *await deliveries(settings, COMMERCE_ORDERS)]


async def ask(transactions: Transactions, action: str, message_id: str) -> str:
    """An operator's wish about the oldest dead letter of a message, granted."""
    pool = transactions.pool
    await pool.execute(
        "INSERT INTO runtime.dead_letter_request (letter, action, actor) SELECT min(id), $2, '' FROM runtime.dead_letter WHERE message_id = $1",
        message_id, action,
    )  # fmt: skip
    await requests.settle(transactions)
    return str(await pool.fetchval("SELECT result FROM runtime.dead_letter_request ORDER BY id DESC LIMIT 1"))


def unread(records: Sequence[Delivery], message_id: str) -> list[Delivery]:
    """The records as older code read them, to which one of them was nothing."""
    unknown = ((0, Flaw("unknown_type", "not known yet")),)
    return [each._replace(messages=(), flaws=unknown) if each.envelope.id == message_id else each for each in records]


def level(order: str, line: int, served: int) -> DemandServed:
    return DemandServed(order=order, line=line, served=served, demand_version=1, version=served)


@pytest.fixture
async def prepared(settings: Settings) -> Settings:
    await toy.prepare(settings)
    return settings


async def test_duplicates_within_a_batch_and_between_batches(prepared: Settings) -> None:
    await publish(prepared, *((toy.order("A", n), str(n)) for n in (1, 2, 1, 2, 3, 1, 4)))
    async with toy.transactions(prepared) as transactions:
        records = await everything(prepared)
        await transactions.batch(records[:4], {})
        await transactions.batch(records, {})
    assert await query(prepared, toy.TOY, "SELECT units FROM account") == [(10,)]
    await same(prepared)


async def test_what_is_parked_or_waits_behind_it_is_no_part_of_the_state(prepared: Settings) -> None:
    toy.FAULTS.add("bad")
    await publish(
        prepared,
        *((toy.order(name, 9), f"{name}-1") for name in "ABCDEFG"),
        (toy.cancel("C", "bad"), "C-2"),
        *((toy.cancel(name, "fine"), f"{name}-3") for name in "ABCDEFG"),
    )
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        assert await transactions.pool.fetchval("SELECT count(*) FROM runtime.dead_letter WHERE state = 'parked'") == 2
        assert await transactions.pool.fetchval("SELECT count(*) FROM runtime.journal") > 2, "found by bisection"
        await same(prepared)
        toy.FAULTS.clear()
        await same(prepared)


@pytest.mark.parametrize("wish", ["replay", "discard"])
async def test_letters_are_applied_at_the_turn_at_which_an_operator_asked_for_them(prepared: Settings, wish: str) -> None:
    toy.FAULTS.add("bad")
    await publish(
        prepared, (toy.order("A", 9), "1"), (toy.cancel("A", "bad"), "2"), (toy.order("B", 9), "3"), (toy.cancel("A", "fine"), "4")
    )
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        await publish(prepared, (toy.order("B", 1), "5"), (toy.order("A", 1), "6"))
        await transactions.batch(await everything(prepared), {})
        toy.FAULTS.clear()
        assert (await ask(transactions, wish, "2")).startswith("applied")
        await publish(prepared, (toy.order("A", 5), "7"))
        await transactions.batch(await everything(prepared), {})
    told = {"replay": ["9", "8", "7", "8", "13"], "discard": ["9", "8", "9", "14"]}[wish]
    assert [word.partition(": ")[2] for word in (await stories(prepared, toy.TOY, "told"))["A"]] == told
    await same(prepared)


async def test_a_letter_that_was_discarded_alone_leaves_nothing(prepared: Settings) -> None:
    toy.FAULTS.add("bad")
    await publish(prepared, (toy.order("A", 9), "1"), (toy.cancel("B", "bad"), "2"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        assert await ask(transactions, "discard", "2") == "discarded"
        toy.FAULTS.clear()
        await same(prepared)


async def test_lists_with_flawed_parked_and_superseded_items(prepared: Settings) -> None:
    toy.FAULTS |= {"served A/1=1", "served A/2=2"}
    items = b",".join(each.model_dump_json().encode() for each in (level("A", 1, 1), level("A", 2, 2), level("B", 1, 3), level("B", 2, 4)))
    flawed = b'{"items":[' + items.replace(b'"line":1,"served":3', b'"line":0,"served":3') + b"]}"
    await append(prepared, raw(level("A", 1, 1), "01900000-0000-7000-8000-000000000001", source="/backorder/inventory", value=flawed))
    await tell(prepared, level("C", 1, 5))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        await tell(prepared, level("A", 1, 6), level("A", 2, 7), level("B", 1, 8))
        await transactions.batch(await everything(prepared), {})
        assert await transactions.pool.fetch("SELECT state FROM runtime.dead_letter ORDER BY state")
        toy.FAULTS.clear()
        await same(prepared)


async def test_what_newer_code_can_read_is_applied_when_it_was_asked_for(prepared: Settings) -> None:
    """Its record lies between others that were applied at once, while it could not be read."""
    await publish(prepared, *((toy.order("A", n), str(n)) for n in (1, 2, 3)))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(unread(await everything(prepared), "2"), {})
        assert await ask(transactions, "replay", "2") == "applied 1 message(s)"
    assert [word.partition(": ")[2] for word in (await stories(prepared, toy.TOY, "told"))["A"]] == ["1", "4", "6"]
    await same(prepared)


async def test_two_instances_of_which_each_has_a_copy_of_the_same_message(prepared: Settings) -> None:
    """The copies stand in two partitions, as after a producer's change of partitioner; the instances take turns."""
    place = partition_of("A", prepared.partitions)
    other = next(name for name in "BCDEFGH" if partition_of(name, prepared.partitions) != place)
    a, b = (raw(toy.order("A", n), str(n)) for n in (1, 2))
    await append(prepared, a, b, replace(a, key=other), replace(b, key=other), replace(raw(toy.order("A", 4), "4"), key=other))
    await append(prepared, raw(toy.order("A", 8), "8"), *(raw(toy.order(other, n), f"{other}-{n}") for n in (1, 2)))
    mine = [each for each in await everything(prepared) if each.partition == place]
    theirs = [each for each in await everything(prepared) if each.partition != place]
    async with toy.transactions(prepared) as one, toy.transactions(prepared) as two:
        await two.batch(theirs[:1], {})
        await one.batch(mine[:2], {})
        await two.batch(theirs, {})
        await one.batch(mine, {})
    assert dict(await query(prepared, toy.TOY, "SELECT name, units FROM account")) == {"A": 15, other: 3}
    await same(prepared)


async def test_timers_that_fired_wait_are_parked_or_wait_behind_what_is_parked(prepared: Settings) -> None:
    toy.FAULTS |= {f"reminder {name}" for name in "BCD"}
    never = toy.DAY.replace(year=2099)
    await publish(prepared, *((toy.order(name, 1), name) for name in "ABCD"), (toy.order("E", 1, placed_at=never), "E"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        await transactions.fire()
        letters = "SELECT message_id FROM runtime.dead_letter ORDER BY aggregate, id"
        assert len(await query(prepared, toy.TOY, letters)) == 3
        assert await query(prepared, toy.TOY, "SELECT key FROM runtime.timer") == [("E",)]
        await same(prepared)
        await publish(prepared, (toy.cancel("C", "c"), "C-2"), (toy.order("C", 1), "C-3"))
        await transactions.batch(await everything(prepared), {})
        await transactions.fire()
        assert await query(prepared, toy.TOY, "SELECT key FROM runtime.timer") == [("E",)]
        await same(prepared)
        toy.FAULTS.clear()
        [(replayed_id,), (discarded_id,), _, _] = await query(prepared, toy.TOY, letters)
        assert await ask(transactions, "replay", replayed_id) == "applied 1 message(s)"
        assert await ask(transactions, "discard", discarded_id) == "applied 1 message(s)"
    assert await query(prepared, toy.TOY, "SELECT name FROM account WHERE reminded ORDER BY name") == [("A",), ("B",), ("C",)]
    await same(prepared)


async def test_what_the_service_told_itself(prepared: Settings) -> None:
    await publish(prepared, (toy.order("A", 1), "1"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        await transactions.tell([toy.Remark(key="A", text="one"), toy.Remark(key="A", text="two")])
        assert len((await stories(prepared, toy.TOY, "heard"))["A"]) == 2
    await same(prepared)


async def test_a_row_that_does_not_follow_from_the_log_is_named(prepared: Settings) -> None:
    await publish(prepared, *((toy.order(name, 5), name) for name in "ABC"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
        await transactions.fire()
    told = await stories(prepared, toy.TOY, "told")
    for tamper, row, expected in (
        ("UPDATE account SET reminded = false WHERE name = 'B'", {"name": "B", "units": 5, "reminded": False}, "reminded = True"),
        ("DELETE FROM account WHERE name = 'C'", {"row": "missing"}, "name = C, units = 5, reminded = True, "),
        ("INSERT INTO account (name, units) VALUES ('D', 1)", {"name": "D", "units": 1}, "no such row"),
        ("INSERT INTO runtime.timer VALUES ('Reminder', 'A', now())", {"kind": "Reminder", "key": "A"}, "no such row"),
    ):
        await query(prepared, toy.TOY, tamper)
        [violation] = (await replayed(prepared)).violations
        assert violation["service"] == "toy"
        assert violation["row"].items() >= row.items()
        assert expected in violation["expected"]
        await query(prepared, toy.TOY, "DELETE FROM runtime.timer")
        await query(prepared, toy.TOY, "DELETE FROM account WHERE name = 'D'")
        await query(
            prepared, toy.TOY, "INSERT INTO account (name, units, told) VALUES ('C', 5, $1) ON CONFLICT DO NOTHING", json.dumps(told["C"])
        )
        await query(prepared, toy.TOY, "UPDATE account SET reminded = true")
    await same(prepared)


async def test_what_cannot_be_applied_again_is_named(prepared: Settings) -> None:
    await publish(prepared, (toy.order("A", 5), "1"), (toy.cancel("A", "later broken"), "2"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
    toy.FAULTS.add("later broken")
    [violation] = (await replayed(prepared)).violations
    [(number,)] = await query(prepared, toy.TOY, "SELECT number FROM runtime.journal")
    assert violation["row"] == {"table": "runtime.journal", "number": number, "error": "ZeroDivisionError: a bug in later broken"}


async def test_topics_that_are_not_whole_are_refused(prepared: Settings) -> None:
    await publish(prepared, *((toy.order("A", n), str(n)) for n in range(1, 5)))
    async with toy.transactions(prepared) as transactions:
        for record in await everything(prepared):
            await transactions.batch([record], {})
    place = partition_of("A", prepared.partitions)
    at = TopicPartition(prepared.topic(COMMERCE_ORDERS.name), place)
    async with admin(prepared) as client:
        await client.delete_records({at: RecordsToDelete(before_offset=3)})
    with pytest.raises(NotWholeError, match=f"commerce.orders/{place} begins at 3, the journal needs 0"):
        await replayed(prepared)
    await query(prepared, toy.TOY, "UPDATE runtime.journal SET applied = $1", json.dumps([Run(COMMERCE_ORDERS.name, place, 3, 0, 9, 0)]))
    with pytest.raises(NotWholeError, match=f"commerce.orders/{place} ends at 4, the journal needs 9"):
        await replayed(prepared)
    await query(prepared, toy.TOY, "UPDATE runtime.journal SET applied = $1", json.dumps([Run(COMMERCE_ORDERS.name, place, 3, 0, 3, 7)]))
    with pytest.raises(NotWholeError, match="does not hold"):
        await replayed(prepared)


async def test_nothing_is_left_on_the_server(prepared: Settings) -> None:
    await publish(prepared, (toy.order("A", 1), "1"))
    async with toy.transactions(prepared) as transactions:
        await transactions.batch(await everything(prepared), {})
    await same(prepared)
    databases = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
    assert await query(prepared, toy.TOY, databases, f"backorder_{prepared.namespace}-") == []


async def test_a_system_at_work_can_be_replayed_too(prepared: Settings) -> None:
    """Journal and state are of one moment."""
    await publish(prepared, *((toy.order(f"A{n % 7}", n), str(n)) for n in range(1, 400)))
    async with toy.running(prepared) as runtime:
        await eventually(lambda: runtime.pool.fetchval("SELECT count(*) FROM account"))
        busy = asyncio.create_task(publish(prepared, *((toy.cancel(f"A{n % 7}", str(n)), f"cancel {n}") for n in range(600))))
        while not busy.done():
            await same(prepared)
        await busy
    await same(prepared)


def loose(items: Sequence[Item]) -> list[Run | Own]:
    """A journal that says from where to where, not what."""
    places: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for item in items:
        places.setdefault((item.origin.topic, item.origin.partition), []).append((item.origin.offset, item.origin.index))
    return [Run(*place, *min(offsets), *max(offsets)) for place, offsets in places.items()]


@pytest.mark.parametrize("removed", [False, True], ids=["exact", "from where to where"])
@pytest.mark.parametrize("between", ["duplicate", "waiting", "refused"])
async def test_the_journal_has_to_be_exact(prepared: Settings, monkeypatch: pytest.MonkeyPatch, between: str, *, removed: bool) -> None:
    """Between two messages that are applied together stands a third that is not, in the same partition."""
    if removed:
        monkeypatch.setattr(journal, "applied", loose)
    toy.FAULTS.add("bad")
    near = next(f"B{n}" for n in range(100) if partition_of(f"B{n}", prepared.partitions) == partition_of("A", prepared.partitions))
    async with toy.transactions(prepared) as transactions:
        await publish(prepared, (toy.cancel(near, "bad"), "0"))
        await transactions.batch(await everything(prepared), {})
        if between != "waiting":
            assert await ask(transactions, "discard", "0") == "discarded"
        midst = (toy.cancel(near, "bad"), "0") if between == "duplicate" else (toy.order(near, 1), "2")
        await publish(prepared, (toy.order("A", 1), "1"), midst, (toy.order("A", 2), "3"))
        records = await everything(prepared)
        await transactions.batch(unread(records, "2") if between == "refused" else records, {})
    toy.FAULTS.clear()
    assert dict(await query(prepared, toy.TOY, "SELECT name, units FROM account WHERE units <> 0")) == {"A": 3}
    assert bool((await replayed(prepared)).violations) == removed
