"""What is broken waits for an operator, and nothing else waits: a bug that is caught before it is saved, a row changed by hand."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import REGISTRY

from shared import invariants, transaction
from shared.runtime import Runtime
from shared.service import Connection, Context
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import publish
from tests.integration.runtime.guarded import GUARDED, UNITS, ask_repair, quarantined, tamper
from tests.integration.runtime.observe import ask, becomes, eventually, letter, letters, query, ready, units


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "DUTY", 0.2)


@pytest.fixture
def no_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the tables in the background."""

    async def never(_: invariants.Rounds) -> None:
        return

    monkeypatch.setattr(invariants.Rounds, "run", never)


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"invariant": UNITS}) or 0


async def rounds(settings: Settings, count: int = 2) -> None:
    """Returns when everything (it is one slice) has been looked at so many times more."""
    began = "SELECT xmin::text FROM runtime.round"
    for _ in range(count):
        before = await query(settings, toy.TOY, began)
        await eventually(partial(differs, settings, began, before))


async def differs(settings: Settings, sql: str, before: object) -> bool:
    return await query(settings, toy.TOY, sql) != before


async def test_a_bug_is_caught_before_it_is_saved_and_its_message_named(settings: Settings) -> None:
    await toy.prepare(settings)
    toy.FAULTS.add("miscount bad")
    await publish(settings, *((toy.order(name, 9), name) for name in "ABC"))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys("ABC", 9))
        checked = metric("backorder_invariants_checked_total")
        await publish(
            settings, (toy.cancel("A", "1"), "1"), (toy.cancel("B", "bad"), "bad"), (toy.cancel("B", "2"), "2"), (toy.cancel("C", "3"), "3")
        )
        await becomes(lambda: units(runtime), {"A": 8, "B": 9, "C": 8})
        await becomes(lambda: letters(runtime, "parked"), [("bad", "invariant_broken"), ("2", "behind_parked")])
        [(detail,)] = await query(settings, toy.TOY, "SELECT detail FROM runtime.dead_letter WHERE message_id = 'bad'")
        assert detail == f"{UNITS}: account:B: units 9 → 7, told 9 → 8"
        assert await ready(runtime)
        assert metric("backorder_invariants_broken") == 1
        assert metric("backorder_invariants_checked_total") > checked
        await rounds(settings)
        assert await quarantined(settings) == []  # its row is right
        toy.FAULTS.clear()
        assert await ask(runtime, "replay", await letter(runtime, "bad")) == "applied 2 message(s)"
        assert await units(runtime) == {"A": 8, "B": 7, "C": 8}
        assert await ready(runtime)
        assert metric("backorder_invariants_broken") == 0


async def test_a_row_changed_by_hand_is_found_held_repaired_and_caught_up_with(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(name, 9), name) for name in "ABC"))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys("ABC", 9))
        await rounds(settings, 3)
        await tamper(settings, "UPDATE account SET units = 90 WHERE name = 'B'")
        await becomes(lambda: quarantined(settings), ["account:B"])
        [found] = await query(settings, toy.TOY, "SELECT invariant, detail, number, message, right_until > 0 FROM runtime.quarantine")
        assert found[0] == UNITS
        assert found[1].startswith("name = B, units = 90, told = ")
        assert found[2:] == (None, None, True)  # nothing touched it since it was right: changed from outside
        await publish(settings, *((toy.cancel(name, f"{name}{n}"), f"{name}{n}") for name in "ABC" for n in (1, 2)))
        await becomes(lambda: units(runtime), {"A": 7, "B": 90, "C": 7})
        await becomes(lambda: letters(runtime, "parked"), [("B1", "quarantined"), ("B2", "quarantined")])
        flows, details = await runtime.readiness()
        assert flows
        assert details["quarantined"] == {"account:B": UNITS}
        assert metric("backorder_invariants_broken") == 1
        assert REGISTRY.get_sample_value("backorder_quarantined") == 1

        assert await ask(runtime, "replay", await letter(runtime, "B2")) == "failed, parked again: waits for the repair of account:B"
        would = await ask_repair(settings, "account:B", dry_run=True)
        assert would == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        assert await quarantined(settings) == ["account:B"]
        assert await letters(runtime, "parked") == [("B1", "quarantined"), ("B2", "quarantined")]
        assert await ask_repair(settings, "account:B") == would
        await becomes(lambda: units(runtime), {"A": 7, "B": 7, "C": 7})
        assert await letters(runtime, "parked") == []
        assert await quarantined(settings) == []
        await publish(settings, (toy.cancel("B", "B3"), "B3"))
        await becomes(lambda: units(runtime), {"A": 7, "B": 6, "C": 7})
        await rounds(settings)
        assert await quarantined(settings) == []
        assert (await runtime.readiness())[1].get("quarantined") is None
        assert metric("backorder_invariants_broken") == 0
    kept = await query(settings, toy.TOY, "SELECT aggregate, dry_run, actor, reason, repaired FROM runtime.repair ORDER BY id")
    assert kept == [("account:B", dry_run, "operator", "somebody counted", True) for dry_run in (True, False)]
    [(own,)] = await query(settings, toy.TOY, "SELECT applied FROM runtime.journal WHERE applied::text LIKE '%Repair%'")
    assert '"actor": "operator"' in own


async def test_what_broke_it_since_it_was_right_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that no check of transactions sees."""
    await toy.prepare(settings)
    toy.FAULTS.add("miscount bad")
    await publish(settings, (toy.order("A", 9), "A"))
    async with toy.running(settings, replace(GUARDED, checks={})) as runtime:
        await becomes(lambda: units(runtime), {"A": 9})
        await rounds(settings, 3)
        await publish(settings, (toy.cancel("A", "bad"), "bad"))
        await becomes(lambda: quarantined(settings), ["account:A"])
        [(number, message)] = await query(settings, toy.TOY, "SELECT number, message FROM runtime.quarantine")
        assert message == f"{number}: 8"
        assert (await ask_repair(settings, "account:A"))[1] == "units 7 → 8"


@pytest.mark.usefixtures("no_rounds")
async def test_a_message_that_comes_to_what_is_broken_waits_and_is_not_blamed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody looks in the background; and however many come, the consumer goes on."""
    monkeypatch.setattr(transaction, "FAILURES_IN_A_ROW", 3)
    await toy.prepare(settings)
    await publish(settings, *((toy.order(name, 9), name) for name in ("A", "B")))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys("AB", 9))
        await tamper(settings, "UPDATE account SET units = 90 WHERE name = 'A'")
        await publish(settings, *((toy.cancel("A", f"{n}"), f"{n}") for n in range(5)), (toy.cancel("B", "B"), "b"))
        await becomes(lambda: units(runtime), {"A": 90, "B": 8})
        await becomes(lambda: letters(runtime, "parked"), [(f"{n}", "quarantined") for n in range(5)])
        assert await quarantined(settings) == ["account:A"]
        assert await ask_repair(settings, "account:A") == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: units(runtime), {"A": 4, "B": 8})


async def test_what_else_a_message_touches_holds_it_back_too(settings: Settings) -> None:
    await toy.prepare(settings)
    names = ["P", "P-1", "P-2", "Q-1"]
    await publish(settings, *((toy.order(name, 9), name) for name in names))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys(names, 9))
        await becomes(lambda: query(settings, toy.TOY, "SELECT count(*) FROM account WHERE NOT reminded"), [(0,)])  # timers touch too
        await tamper(settings, "UPDATE account SET units = 90 WHERE name IN ('P', 'P-2')")
        await becomes(lambda: quarantined(settings), ["account:P", "account:P-2"])
        for n in (1, 2):
            await publish(settings, *((toy.cancel(name, f"{name}.{n}"), f"{name}.{n}") for name in names))
        await becomes(lambda: units(runtime), {"P": 90, "P-1": 9, "P-2": 90, "Q-1": 7})
        await eventually(lambda: same(runtime, 6))
        assert await ask_repair(settings, "account:P") == (True, "units 90 → 9; what waited for it is replayed, from 3 dead letter(s) on")
        await becomes(lambda: units(runtime), {"P": 7, "P-1": 7, "P-2": 90, "Q-1": 7})
        waiting = "SELECT waits_for, count(*) FROM runtime.dead_letter WHERE state = 'parked' GROUP BY 1"
        await becomes(lambda: query(settings, toy.TOY, waiting), [("account:P-2", 2)])
        assert await ask_repair(settings, "account:P-2") == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: units(runtime), dict.fromkeys(names, 7))


async def test_what_breaks_when_it_is_caught_up_with_holds_back_its_own_only(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, *((toy.order(name, 9), name) for name in ("P", "P-1", "P-2")))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys(("P", "P-1", "P-2"), 9))
        await becomes(lambda: query(settings, toy.TOY, "SELECT count(*) FROM account WHERE NOT reminded"), [(0,)])  # timers touch too
        await tamper(settings, "UPDATE account SET units = 90 WHERE name = 'P'")
        await becomes(lambda: quarantined(settings), ["account:P"])
        toy.FAULTS |= {"bad", "miscount worse"}
        await publish(
            settings, (toy.cancel("P-1", "bad"), "bad"), (toy.cancel("P-1", "good"), "good"), (toy.cancel("P-2", "good"), "other")
        )
        await publish(settings, (toy.cancel("P", "worse"), "worse"), (toy.cancel("P", "good"), "last"))
        await becomes(lambda: reason_of(runtime), dict.fromkeys(("bad", "good", "other", "worse", "last"), "quarantined"))
        assert await ask_repair(settings, "account:P") == (True, "units 90 → 9; what waited for it is replayed, from 3 dead letter(s) on")
        await becomes(lambda: units(runtime), {"P": 9, "P-1": 9, "P-2": 8})
        await becomes(lambda: asked(settings), [])
        await publish(settings, (toy.cancel("P-1", "later"), "later"))
        reasons = {
            "bad": "handler_failed",
            "good": "quarantined",
            "worse": "invariant_broken",
            "last": "quarantined",
            "later": "behind_parked",
        }
        await becomes(lambda: reason_of(runtime), reasons)
        toy.FAULTS.clear()
        assert await ask(runtime, "replay", await letter(runtime, "bad")) == "applied 3 message(s)"
        assert await ask(runtime, "replay", await letter(runtime, "worse")) == "applied 2 message(s)"
        assert await units(runtime) == {"P": 7, "P-1": 6, "P-2": 8}


async def asked(settings: Settings) -> list[tuple[object, ...]]:
    """Requests that have not been settled."""
    return await query(settings, toy.TOY, "SELECT id FROM runtime.dead_letter_request WHERE done_at IS NULL")


async def same(runtime: Runtime, count: int) -> bool:
    return len(await letters(runtime, "parked")) == count


async def reason_of(runtime: Runtime) -> dict[str, str]:
    return dict(await letters(runtime, "parked"))


async def test_behind_a_parked_message_a_repair_changes_nothing(settings: Settings) -> None:
    """The bug came first, then the hand: the repaired account's messages wait for the operator's word on the first."""
    await toy.prepare(settings)
    toy.FAULTS.add("bad")
    await publish(settings, (toy.order("A", 9), "A"), (toy.cancel("A", "bad"), "bad"))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: letters(runtime, "parked"), [("bad", "handler_failed")])
        await tamper(settings, "UPDATE account SET units = 90")
        await becomes(lambda: quarantined(settings), ["account:A"])
        await publish(settings, (toy.cancel("A", "1"), "1"))
        await becomes(lambda: letters(runtime, "parked"), [("bad", "handler_failed"), ("1", "quarantined")])
        toy.FAULTS.clear()
        assert await ask_repair(settings, "account:A") == (True, "units 90 → 9")
        assert await ask(runtime, "replay", await letter(runtime, "bad")) == "applied 2 message(s)"
        assert await units(runtime) == {"A": 7}


async def test_what_waits_for_a_repair_can_be_discarded(settings: Settings) -> None:
    await toy.prepare(settings)
    await publish(settings, (toy.order("A", 9), "A"))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), {"A": 9})
        await tamper(settings, "UPDATE account SET units = 90")
        await becomes(lambda: quarantined(settings), ["account:A"])
        await publish(settings, *((toy.cancel("A", f"{n}"), f"{n}") for n in range(2)))
        await becomes(lambda: letters(runtime, "parked"), [("0", "quarantined"), ("1", "quarantined")])
        done = await ask(runtime, "discard", await letter(runtime, "0"))
        assert done == "applied 0 message(s), 1 parked again: waits for the repair of account:A"
        assert await ask_repair(settings, "account:A") == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: units(runtime), {"A": 8})


async def test_what_nobody_can_tell_stays_quarantined(settings: Settings) -> None:
    await toy.prepare(settings)
    lonely = replace(GUARDED, watched=(replace(GUARDED.watched[0], checks={UNITS: "SELECT name, units FROM account WHERE units = 5"}),))
    async with toy.running(settings, lonely) as runtime:
        await tamper(settings, "INSERT INTO account (name, units) VALUES ('X', 5), ('Y', 6)")
        await becomes(lambda: quarantined(settings), ["account:X"])
        assert await ask_repair(settings, "account:X") == (False, "cannot be repaired: X has told nothing: count it")
        assert await quarantined(settings) == ["account:X"]
        assert await ask_repair(settings, "account:Y") == (False, "cannot be repaired: nothing is wrong with it")
        assert await ask_repair(settings, "planet:Mars") == (False, "cannot be repaired: toy has no 'planet:Mars'")
        await tamper(settings, "UPDATE account SET units = 6, told = '[\"1: 6\"]' WHERE name = 'X'")  # somebody counted
        assert await ask_repair(settings, "account:X") == (True, "its numbers are right")
        assert await ready(runtime)


async def test_a_timer_of_what_is_quarantined_waits_and_fires_once(settings: Settings) -> None:
    await toy.prepare(settings)
    soon = "UPDATE runtime.timer SET due = now() WHERE key = 'A'"
    await publish(settings, (toy.order("A", 9, placed_at=toy.DAY.replace(year=2099)), "A"))
    quarantining = replace(GUARDED.routes[toy.Reminder], aggregate=lambda timer: f"account:{timer.key}")
    guarded = replace(GUARDED, routes={**GUARDED.routes, toy.Reminder: quarantining})
    async with toy.running(settings, guarded) as runtime:
        await becomes(lambda: units(runtime), {"A": 9})
        await tamper(settings, "UPDATE account SET units = 90")
        await becomes(lambda: quarantined(settings), ["account:A"])
        await tamper(settings, soon)
        await becomes(lambda: query(settings, toy.TOY, "SELECT count(*) FROM runtime.timer"), [(0,)])
        await eventually(lambda: same(runtime, 1))
        assert await query(settings, toy.TOY, "SELECT reminded FROM account") == [(False,)]
        assert await ask_repair(settings, "account:A") == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: query(settings, toy.TOY, "SELECT reminded FROM account"), [(True,)])


async def test_too_many_are_our_fault_and_not_quarantined(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "MOST_QUARANTINED", 2)
    await toy.prepare(settings)
    await publish(settings, *((toy.order(name, 9), name) for name in "ABCDE"))
    async with toy.running(settings, GUARDED) as runtime:
        await becomes(lambda: units(runtime), dict.fromkeys("ABCDE", 9))
        await tamper(settings, "UPDATE account SET units = 90")
        await becomes(lambda: quarantined(settings), ["account:A", "account:B"])
        await rounds(settings)
        assert await quarantined(settings) == ["account:A", "account:B"]
        assert await ask_repair(settings, "account:D") == (True, "units 90 → 9")


async def test_a_wrong_check_stops_nothing(settings: Settings) -> None:
    await toy.prepare(settings)
    wrong = replace(GUARDED, watched=(replace(GUARDED.watched[0], checks={"nonsense": "SELECT nothing FROM account"}),))
    await publish(settings, (toy.order("A", 9), "A"))
    async with toy.running(settings, wrong) as runtime:
        await becomes(lambda: query(settings, toy.TOY, "SELECT reminded FROM account"), [(True,)])
        assert runtime.leading


async def test_the_round_goes_slice_by_slice_and_on_in_another_process(settings: Settings) -> None:
    await toy.prepare(settings)
    names = [f"A{n:03}" for n in range(120)]
    await publish(settings, *((toy.order(name, 1), name) for name in names))
    async with toy.transactions(settings, GUARDED) as transactions:
        async with toy.running(settings, GUARDED) as runtime:
            await becomes(lambda: units(runtime), dict.fromkeys(names, 1))
            runtime.stopping.set()
        await tamper(settings, "DELETE FROM runtime.round")
        await tamper(settings, "UPDATE account SET units = 2 WHERE name IN ('A000', 'A049', 'A050', 'A100', 'A119')")
        seen = []
        for _ in range(3):
            one = invariants.Rounds(GUARDED, transactions.pool, transactions.clock)
            await one.step(GUARDED.watched[0])
            seen.append(len(await quarantined(settings)))
        assert seen == [2, 3, 5]
        assert await query(settings, toy.TOY, "SELECT key, before IS NOT NULL FROM runtime.round") == [("", True)]


async def test_both_of_two_instances_heed_what_one_has_found(settings: Settings) -> None:
    await toy.prepare(settings)
    names = [f"A{n}" for n in range(12)]
    await publish(settings, *((toy.order(name, 9), name) for name in names))
    other = settings.model_copy(update={"instance": "2"})
    async with toy.running(settings, GUARDED) as one:
        async with toy.running(other, GUARDED) as two:
            await becomes(lambda: units(one), dict.fromkeys(names, 9))
            await eventually(lambda: shared_out(one, two))
            await tamper(settings, "UPDATE account SET units = 90 WHERE name IN ('A1', 'A2', 'A3', 'A4')")
            ill = ["account:A1", "account:A2", "account:A3", "account:A4"]
            await becomes(lambda: quarantined(settings), ill)
            await publish(settings, *((toy.cancel(name, name), f"{name}/1") for name in names))
            await becomes(lambda: units(one), {name: 90 if f"account:{name}" in ill else 8 for name in names})
            assert (await two.readiness())[1]["quarantined"] == dict.fromkeys(ill, UNITS)
            two.stopping.set()
        for aggregate in ill:
            assert await ask_repair(settings, aggregate) == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: units(one), dict.fromkeys(names, 8))


async def shared_out(one: Runtime, two: Runtime) -> bool:
    parts = [(await runtime.readiness())[1].get("assigned_partitions", 0) for runtime in (one, two)]
    return bool(min(parts) > 0)


async def test_what_comes_while_a_repair_waits_for_the_key_is_applied_by_it(settings: Settings) -> None:
    await toy.prepare(settings)
    holding, reached, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def save(tx: Connection, state: toy.State, context: Context) -> None:
        if holding.is_set() and not reached.is_set():
            reached.set()
            await release.wait()
        await toy.save(tx, state, context)

    await publish(settings, (toy.order("A", 9), "A"))
    async with toy.running(settings, replace(GUARDED, save=save)) as runtime:
        await becomes(lambda: units(runtime), {"A": 9})
        await tamper(settings, "UPDATE account SET units = 90")
        await becomes(lambda: quarantined(settings), ["account:A"])
        holding.set()
        await publish(settings, (toy.cancel("A", "late"), "late"))
        await asyncio.wait_for(reached.wait(), 20)  # the batch holds the key, and keeps the message back
        repair = asyncio.create_task(ask_repair(settings, "account:A"))
        await eventually(lambda: runtime.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        release.set()
        assert await repair == (True, "units 90 → 9; what waited for it is replayed, from 1 dead letter(s) on")
        await becomes(lambda: units(runtime), {"A": 8})
        assert await letters(runtime, "parked") == []
