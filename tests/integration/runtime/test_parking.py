"""A message that breaks its handler is parked alone; its key waits behind it in order, everybody else goes on."""

import asyncio
import dataclasses

import pytest

from shared import transaction
from shared.contracts.inventory import DemandRefused, DemandServed
from shared.contracts.orders import CancelReason
from shared.runtime import Runtime
from shared.service import Connection, Context
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import append, publish, raw, tell
from tests.integration.runtime.observe import ask, becomes, eventually, letter, letters, query, ready, stopped_by, stories, units


def level(order: str, line: int, served: int) -> DemandServed:
    return DemandServed(order=order, line=line, served=served, demand_version=1, version=served)


def fact(order: str, line: int, quantity: int) -> DemandRefused:
    return DemandRefused(order=order, line=line, quantity=quantity, reason=CancelReason.UNKNOWN_SKU, demand_version=1)


async def test_the_culprit_alone_is_parked_its_key_waits_and_others_flow(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("bad")
    await publish(
        settings,
        *((toy.order(name, 9), f"{name}-1") for name in "ABCDEFG"),
        (toy.cancel("C", "bad"), "C-2"),
        *((toy.cancel(name, "fine"), f"{name}-3") for name in "ABCDEFG"),
    )
    async with toy.running(settings) as runtime:
        flowing = dict.fromkeys("ABDEFG", 8)
        await becomes(lambda: units(runtime), {**flowing, "C": 9})
        assert await letters(runtime, "parked") == [("C-2", "handler_failed"), ("C-3", "behind_parked")]
        detail = "SELECT detail FROM runtime.dead_letter WHERE message_id = 'C-2'"
        assert await runtime.pool.fetchval(detail) == "ZeroDivisionError: a bug in bad"
        await publish(settings, (toy.order("C", 90), "C-4"), (toy.cancel("A", "again"), "A-4"))
        await becomes(lambda: units(runtime), {**flowing, "C": 9, "A": 7})
        assert await letters(runtime, "parked") == [("C-2", "handler_failed"), ("C-3", "behind_parked"), ("C-4", "behind_parked")]
        assert await ready(runtime), "one parked message is no reason to take a service out"

        assert (await ask(runtime, "replay", await letter(runtime, "C-2"))).startswith("failed, still parked: ZeroDivisionError")
        assert len(await letters(runtime, "parked")) == 3
        toy.FAULTS.clear()
        assert await ask(runtime, "replay", await letter(runtime, "C-3")) == "applied 3 message(s)"
        assert [told.partition(": ")[2] for told in (await stories(settings, toy.TOY, "told"))["C"]] == ["9", "8", "7", "97"]
        assert await letters(runtime, "parked") == []
        await publish(settings, (toy.cancel("C", "after"), "C-5"))
        await becomes(lambda: units(runtime), {**flowing, "C": 96, "A": 7})


async def test_discarding_the_culprit_applies_what_waited_behind_it(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("bad")
    await publish(
        settings, (toy.order("A", 9), "1"), (toy.cancel("A", "bad"), "2"), (toy.cancel("A", "fine"), "3"), (toy.order("A", 10), "4")
    )
    async with toy.running(settings) as runtime:
        await eventually(lambda: letters(runtime, "parked"))
        assert await ask(runtime, "discard", await letter(runtime, "2")) == "applied 2 message(s)"
        assert await units(runtime) == {"A": 18}
        assert await letters(runtime, "discarded") == [("2", "handler_failed")]
        assert await ask(runtime, "replay", await letter(runtime, "2")) == "nothing to do: the letter is discarded"


async def test_a_bad_record_that_was_refused_can_be_replayed_or_discarded_too(settings: Settings) -> None:
    await toy.prepare(settings)
    good = toy.order("A", 1)
    await append(settings, raw(good, "text", value=b"hello"), raw(good, "odd", headers={"ce_type": b"acme.Odd.v1"}))
    async with toy.running(settings) as runtime:
        await becomes(lambda: letters(runtime, "refused"), [("text", "not_json"), ("odd", "unknown_type")])
        assert (await ask(runtime, "replay", await letter(runtime, "text"))).startswith(
            "failed, still refused: ValueError: the message is not JSON in UTF-8"
        )
        assert await ask(runtime, "discard", await letter(runtime, "text")) == "discarded"
        await runtime.pool.execute("UPDATE runtime.dead_letter SET type = $1 WHERE message_id = 'odd'", good.TYPE)  # newer code knows it
        assert await ask(runtime, "replay", await letter(runtime, "odd")) == "applied 1 message(s)"
        assert await units(runtime) == {"A": 1}


async def test_a_newer_level_closes_an_older_parked_one_of_the_same_thing(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS |= {"served A/1=1", "served B/1=1", "served C/1=1"}
    await tell(settings, level("A", 1, 1), level("B", 1, 1), level("C", 1, 1))
    async with toy.running(settings) as runtime:
        await becomes(lambda: runtime.pool.fetchval("SELECT count(*) FROM runtime.dead_letter WHERE state = 'parked'"), 3)
        # A: a newer level of the same line, then a fact: both apply. B: a level of another line says nothing about line 1.
        # C: a fact waits behind the parked level, and so does what comes after it.
        await tell(settings, level("A", 1, 2), level("B", 2, 2))
        await tell(settings, fact("C", 1, 3))
        await becomes(lambda: stories(settings, toy.TOY, "heard"), {"A": ["served 1=2"]})
        await tell(settings, fact("A", 1, 3))
        await tell(settings, level("C", 1, 4), level("A", 1, 5))
        await becomes(lambda: stories(settings, toy.TOY, "heard"), {"A": ["served 1=2", "refused 1=3", "served 1=5"]})
        states = "SELECT aggregate, state FROM runtime.dead_letter ORDER BY aggregate, id"
        assert await query(settings, toy.TOY, states) == [
            ("account:A", "superseded"), ("account:B", "parked"), ("account:B", "parked"), *[("account:C", "parked")] * 3,
        ]  # fmt: skip
        toy.FAULTS.clear()
        for (number,) in await query(
            settings, toy.TOY, "SELECT min(id) FROM runtime.dead_letter WHERE state = 'parked' GROUP BY aggregate"
        ):
            assert (await ask(runtime, "replay", number)).startswith("applied")
        heard = await stories(settings, toy.TOY, "heard")
        assert (heard["B"], heard["C"]) == (["served 1=1", "served 2=2"], ["served 1=1", "refused 1=3", "served 1=4"])


async def test_a_fact_in_the_batch_of_the_superseding_level_is_not_lost(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("served A/1=1")
    await tell(settings, level("A", 1, 1))
    async with toy.running(settings) as runtime:
        await eventually(lambda: letters(runtime, "parked"))
        first = raw(level("A", 1, 2), "01900000-0000-7000-8000-000000000001", source="/backorder/inventory")
        second = raw(fact("A", 1, 3), "01900000-0000-7000-8000-000000000002", source="/backorder/inventory")
        runtime.stopping.set()
    await append(settings, first, second)
    async with toy.running(settings):
        await becomes(lambda: stories(settings, toy.TOY, "heard"), {"A": ["served 1=2", "refused 1=3"]})


async def test_when_a_whole_batch_fails_nothing_is_parked_until_it_is_mended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "FAILURES_IN_A_ROW", 4)
    await toy.prepare(settings)
    names = [f"A{n}" for n in range(9)]
    toy.FAULTS |= {f"R-{name}" for name in names}
    await publish(settings, *((toy.order(name, 9), f"order-{name}") for name in names))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys(names, 9))
        runtime.stopping.set()
    await publish(settings, *((toy.cancel(name, f"R-{name}"), name) for name in names))
    async with toy.running(settings) as runtime:
        await eventually(lambda: stopped_by(runtime, "TooManyFailuresError"))
        assert await letters(runtime, "parked") == []
        toy.FAULTS.clear()
        await becomes(lambda: units(runtime), dict.fromkeys(names, 8))
        await eventually(lambda: ready(runtime))


async def test_when_one_message_after_another_fails_the_topic_is_not_drained_either(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "FAILURES_IN_A_ROW", 3)
    await toy.prepare(settings)
    toy.FAULTS |= {"R1", "R2", "R3"}
    async with toy.running(settings) as runtime:
        for number, parked in ((1, 1), (2, 2), (3, 2)):
            # The first of each key fails, the second only waits behind it: that is no sign of health.
            await publish(settings, (toy.cancel(f"A{number}", f"R{number}"), f"{number}"))
            await publish(settings, (toy.cancel(f"A{min(number, 2)}", "behind"), f"{number}b"))
            await becomes(lambda: failed_letters(runtime), parked)
        await eventually(lambda: stopped_by(runtime, "TooManyFailuresError"))
        assert await failed_letters(runtime) == 2
        toy.FAULTS.clear()
        await becomes(lambda: units(runtime), {"A3": -1})
        await eventually(lambda: ready(runtime))


async def failed_letters(runtime: Runtime) -> int:
    return len([reason for _, reason in await letters(runtime, "parked") if reason == "handler_failed"])


async def test_a_timer_that_breaks_its_handler_is_parked_once_and_replayed_once(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("reminder A")
    await publish(settings, (toy.order("A", 1), "1"), (toy.order("B", 1), "2"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: reminded(runtime), ["B"])
        await becomes(lambda: runtime.pool.fetchval("SELECT count(*) FROM runtime.timer"), 0)
        [(_, reason)] = await letters(runtime, "parked")
        assert reason == "handler_failed"
        toy.FAULTS.clear()
        [(number,)] = await query(settings, toy.TOY, "SELECT id FROM runtime.dead_letter")
        assert await ask(runtime, "replay", number) == "applied 1 message(s)"
        assert await reminded(runtime) == ["A", "B"]


async def reminded(runtime: Runtime) -> list[str]:
    return [row["name"] for row in await runtime.pool.fetch("SELECT name FROM account WHERE reminded ORDER BY name")]


async def test_what_the_database_refuses_is_parked_like_what_a_handler_refuses(settings: Settings) -> None:
    """3 × 10^9 units do not fit into the toy's integer: the driver's own error, raised in save, has a culprit as well."""
    await toy.prepare(settings)
    most = [1_000_000] * 1_000
    await publish(settings, *((toy.order("A", *most), str(n)) for n in range(3)), (toy.order("B", 1), "other"))
    async with toy.running(settings) as runtime:
        await becomes(lambda: units(runtime), {"A": 2 * 10**9, "B": 1})
        assert await letters(runtime, "parked") == [("2", "handler_failed")]


async def test_what_is_parked_while_a_replay_waits_for_the_key_is_applied_by_it(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("bad")
    holding, reached, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def save(tx: Connection, state: toy.State, context: Context) -> None:
        if holding.is_set() and not reached.is_set():
            reached.set()
            await release.wait()
        await toy.save(tx, state, context)

    await publish(settings, (toy.order("A", 9), "1"), (toy.cancel("A", "bad"), "2"))
    async with toy.running(settings, dataclasses.replace(toy.TOY, save=save)) as runtime:
        await becomes(lambda: letters(runtime, "parked"), [("2", "handler_failed")])
        toy.FAULTS.clear()
        holding.set()
        await publish(settings, (toy.cancel("A", "late"), "3"))
        await asyncio.wait_for(reached.wait(), 20)  # the batch holds the key, and has parked message 3
        replay = asyncio.create_task(ask(runtime, "replay", await letter(runtime, "2")))
        await eventually(lambda: runtime.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        release.set()
        assert await replay == "applied 2 message(s)"
        assert await units(runtime) == {"A": 7}
        assert await letters(runtime, "parked") == []
