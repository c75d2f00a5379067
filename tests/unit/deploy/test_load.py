"""What is ordered under load, and what is made of what was seen: each verdict holds for what is well, and fails for what is not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest

from deploy.load import demand, verdict
from deploy.load.reader import Orders, probes, reads
from deploy.load.result import Answers, Footprint, Group, Growth, Latency, Limits, Settled, latencies
from deploy.load.run import Plan
from deploy.load.seen import Database, Membership, Sample, Table
from deploy.local.ranked import ranked
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced
from shared.contracts.suppliers import OfferChanged
from shared.contracts.warehouse import StockCounted

LIMITS = Limits(drained_seconds=100)
STABLE: Membership = ("Stable", ("orders-1-a", "orders-2-b"))
DONE = Settled(drained_seconds=50.0, settled_seconds=60.0, audited=1_000, wrong=0)


# what is ordered


def orders(numbers: range) -> list[OrderPlaced]:
    said = [publication.message for number in numbers for publication in demand.said(number, demand.BEGIN)]
    return [message for message in said if isinstance(message, OrderPlaced)]


def test_a_number_is_one_order_in_any_process() -> None:
    assert demand.said(7, demand.BEGIN) == demand.said(7, demand.BEGIN)
    assert orders(range(3))[2].order == demand.order_id(2)


def test_a_third_of_the_lines_waits_and_no_order_has_a_sku_twice() -> None:
    counted = [publication.message for publication in demand.definitions() if isinstance(publication.message, StockCounted)]
    stock = {count.sku: count.on_hand for count in counted}
    placed = orders(range(3_000))
    lines = [line.sku for order in placed for line in order.lines]
    assert all(len({line.sku for line in order.lines}) == len(order.lines) for order in placed)
    assert len(lines) == sum(map(demand.lines_of, range(3_000))) == 9_000
    assert set(lines) == set(stock)
    assert sum(stock[sku] == 0 for sku in lines) / len(lines) == pytest.approx(1 / 3, abs=0.02)


def test_whatever_waits_can_be_bought_from_two() -> None:
    offers = [publication.message for publication in demand.definitions() if isinstance(publication.message, OfferChanged)]
    for number in range(demand.SKUS):
        suppliers = {offer.supplier for offer in offers if offer.sku == demand.sku(number)}
        assert len(suppliers) == (2 if demand.scarce(number) else 0)


def test_some_customers_think_better_of_their_order() -> None:
    wishes = [publication.message for number in range(500) for publication in demand.said(number, demand.BEGIN)[1:]]
    assert len(wishes) == 10
    assert all(isinstance(wish, OrderCancelRequested) for wish in wishes)


def test_people_ask_every_instance_for_orders_that_exist_and_probes_ask_all() -> None:
    instances = {"orders": ["http://o1", "http://o2"], "inventory": ["http://i1", "http://i2"]}
    asked = list(islice(reads(instances, Orders()), 12))
    assert [kind for kind, _ in asked] == ["order", "sku", "queue"] * 4
    assert {url for kind, url in asked if kind == "order"} == {f"http://o{number}/orders/load-00000000" for number in (1, 2)}
    assert {url[:9] for kind, url in asked if kind != "order"} == {"http://i1", "http://i2"}
    assert set(islice(probes(instances), 8)) == {
        (kind, f"{address}/health/{kind}") for kind in ("live", "ready") for address in ("http://o1", "http://o2", "http://i1", "http://i2")
    }


def test_what_comes_in_excess_has_twice_its_time_to_drain() -> None:
    assert Plan(minutes=5, times=5).limits.drained_seconds == 30 + 2 * 4 * 300
    assert Plan(minutes=30, times=0.5).limits.drained_seconds == 30
    assert Plan(minutes=0.5, times=5).days_per_second * 30 == 15


# trends


def points(*values: float) -> list[tuple[float, float]]:
    return [(float(number), value) for number, value in enumerate(values)]


def test_what_rises_while_it_warms_up_and_stays_is_flat() -> None:
    assert verdict.over_time(points(*range(0, 100, 10), *[100.0] * 10), "MB").flat


def test_what_goes_up_and_down_is_flat() -> None:
    assert verdict.over_time(points(*[100.0, 140.0] * 20), "MB").flat


def test_what_goes_on_rising_is_not_flat() -> None:
    found = verdict.over_time(points(*(100.0 + 2 * minute for minute in range(31))), "MB")
    assert found == Growth(unit="MB", level=145.0, gained=30.0, allowed=14.5, flat=False)


@pytest.mark.parametrize(("unit", "slack"), verdict.SLACK.items())
def test_a_low_level_may_gain_a_little(unit: str, slack: float) -> None:
    assert verdict.over_time(points(0, 0, 0, slack * 0.49, slack * 0.98), unit).flat
    assert not verdict.over_time(points(0, 0, 0, slack * 0.51, slack * 1.02), unit).flat


def test_what_grows_with_every_line_alike_is_flat_per_line_and_what_grows_faster_later_is_not() -> None:
    lines = range(0, 10_000, 100)
    assert verdict.over_lines([(at, 5_000 + 400 * at) for at in lines], "bytes").flat
    found = verdict.over_lines([(at, 400 * at + (200 * (at - 5_000) if at > 5_000 else 0)) for at in lines], "bytes")
    assert not found.flat
    assert found.level == 400
    assert found.gained == pytest.approx(200, rel=0.02)


def test_one_look_shows_no_trend() -> None:
    assert verdict.over_time(points(100.0), "MB").gained == 0


# a soak


def sample(at: float, *, memory: float = 100.0, dead: int = 0, outbox: int = 0, inbox: int = 0, sku: int = 0) -> Sample:
    lines = round(100 * at)
    tables = {
        "public.line": Table(table_bytes=300 * lines, index_bytes=100 * lines, live=lines, dead=dead),
        "public.sku": Table(table_bytes=sku, index_bytes=0, live=10, dead=0),
        "runtime.inbox": Table(table_bytes=50 * lines + inbox, index_bytes=0, live=lines, dead=0),
    }
    process = Footprint(memory_mb=memory, fds=30, threads=5)
    return Sample(at, lines, {"orders-1": process}, {"orders": Database(tables, {"outbox": outbox}, connections=9)})


def violations(samples: Sequence[Sample]) -> set[str]:
    found = [
        *verdict.flatness(verdict.series(samples), "flat over time"),
        *verdict.flatness(verdict.per_line(samples), "flat per line"),
        *verdict.tidy(verdict.dead_rows(samples)),
    ]
    return {f"{violation.check}: {violation.row.get('series', violation.row.get('service'))}" for violation in found}


def test_a_system_whose_history_grows_with_the_lines_bears_it() -> None:
    assert not violations([sample(at) for at in range(0, 1_800, 30)])


@pytest.mark.parametrize(
    ("grows", "found"),
    [
        ("memory", "flat over time: orders-1, MB"),
        ("outbox", "flat over time: orders: outbox, rows"),
        ("sku", "flat over time: orders: tables without history, MB"),
        ("inbox", "flat per line: orders: inbox, bytes"),
        ("dead", "few rows are dead: orders"),
    ],
)
def test_what_grows_is_found(grows: str, found: str) -> None:
    by = {"memory": 0.1, "outbox": 10, "sku": 50_000, "inbox": 3_000, "dead": 300}
    grown = [sample(at, **{grows: by[grows] * max(0, at - 900) + (100 if grows == "memory" else 0)}) for at in range(0, 1_800, 30)]  # type: ignore[arg-type]
    assert found in violations(grown)


def test_a_process_that_came_later_has_no_trend() -> None:
    early, late = sample(0), sample(30)
    late = replace(late, processes={**late.processes, "orders-2": Footprint(memory_mb=1, fds=1, threads=1)})
    assert "orders-2, MB" not in verdict.series([early, late])


# an overload, or either


def test_memory_has_a_limit_of_its_own_for_servers() -> None:
    seen = [(0.0, {name: Footprint(memory_mb=100, fds=9, threads=2) for name in ("orders-1", "kafka", "postgres")})]
    seen.append((2.0, {name: Footprint(memory_mb=600, fds=5, threads=3) for name in ("orders-1", "kafka", "postgres")}))
    found = verdict.memory(seen, LIMITS)
    assert (found["kafka"].begin_mb, found["kafka"].end_mb, found["kafka"].peak_fds, found["kafka"].peak_threads) == (100, 600, 9, 3)
    assert [violation.row["process"] for violation in verdict.bounded(found)] == ["orders-1"]


@pytest.mark.parametrize(
    ("seen", "assignments", "steady"),
    [
        ([STABLE], 0, True),
        ([STABLE, ("PreparingRebalance", STABLE[1]), STABLE], 0, False),
        ([STABLE, ("Stable", ("orders-1-a",))], 0, False),
        ([STABLE, ("Stable", ("orders-1-a", "orders-2-c"))], 0, False),
        ([STABLE], 1, False),
        ([], 0, False),
    ],
)
def test_a_group_keeps_its_members_and_their_partitions(seen: list[Membership], assignments: int, steady: bool) -> None:
    found = verdict.groups({"orders": seen}, {"orders": assignments})
    assert found == {"orders": Group(members=2 if seen else 0, changes=max(0, len(seen) - 1), assignments=assignments)}
    assert (not list(verdict.steady(found))) is steady


def test_the_percentiles_are_by_nearest_rank() -> None:
    assert [ranked([float(value) for value in range(1, 101)], share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert ranked([], 0.5) is None


@pytest.mark.parametrize(
    ("kind", "milliseconds", "status", "checks"),
    [
        ("order", 500.0, "200", []),
        ("order", 501.0, "200", ["99 of 100 reads are answered in time"]),
        ("live", 501.0, "200", []),
        ("live", 1.0, "503", ["every question is answered with 200"]),
        ("sku", 1.0, "ReadTimeout", ["every question is answered with 200"]),
    ],
)
def test_reads_are_answered_in_time_and_probes_with_yes(kind: str, milliseconds: float, status: str, checks: list[str]) -> None:
    found = latencies({kind: Answers(milliseconds=[milliseconds] * 100, statuses={status: 100})})
    assert found[kind].count == 100
    assert [violation.check for violation in verdict.answered(found, LIMITS)] == checks


def test_nothing_asked_is_nothing_answered() -> None:
    assert list(verdict.answered({"order": Latency(count=0, p50=None, p99=None, max=None, statuses={})}, LIMITS))


@pytest.mark.parametrize(
    ("end", "checks"),
    [
        (DONE, []),
        (DONE.model_copy(update={"drained_seconds": 101.0}), ["the lag drains"]),
        (DONE.model_copy(update={"drained_seconds": None}), ["the lag drains"]),
        (DONE.model_copy(update={"settled_seconds": None}), ["everything ordered comes to its end"]),
        (DONE.model_copy(update={"wrong": 1}), ["the audit is clean"]),
    ],
)
def test_everything_comes_to_its_end(end: Settled, checks: list[str]) -> None:
    assert [violation.check for violation in verdict.ended(end, LIMITS)] == checks


def test_who_died_is_named() -> None:
    assert [violation.row for violation in verdict.alive({"orders-1"})] == [{"process": "orders-1"}]
    assert not list(verdict.alive(()))
