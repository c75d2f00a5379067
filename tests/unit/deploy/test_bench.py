"""The bench's arithmetic: what is played, when it is appended, how long things took, what rounds come to."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from aiokafka import ConsumerRecord

from deploy.bench import loader, log, result, rivals, workloads
from deploy.bench.result import LIMIT, NAIVE, OURS, Latency, Sample
from deploy.bench.run import Plan
from deploy.bench.workloads import Name, case, demand
from deploy.local.errors import UserError
from shared.contracts.commerce import Customer, OrderedLine, OrderPlaced
from shared.contracts.orders import LineAllocated, OrderAccepted
from shared.contracts.suppliers import ReceivedLine

INVENTED = (Name.UNIFORM, Name.HOT_SKU, Name.STEADY)


def sold(order: str, *quantities: int) -> OrderPlaced:
    return OrderPlaced(
        order=order,
        placed_at=datetime(2010, 12, 1, tzinfo=UTC),
        customer=Customer(id="c", name="Ann", email="ann@example.com"),
        currency="GBP",
        lines=tuple(
            OrderedLine(line=number, sku=f"s{number}", quantity=quantity, unit_price=Decimal(1))
            for number, quantity in enumerate(quantities, start=1)
        ),
    )


@pytest.mark.parametrize("name", INVENTED)
def test_half_of_the_units_are_in_stock(name: Name) -> None:
    played = case(name, 3_000)
    assert played.lines == 3_000
    wanted = demand(played.orders)
    assert played.stock.keys() == wanted.keys()
    assert all(units == wanted[sku] // 2 for sku, units in played.stock.items())


def test_the_same_arguments_give_the_same_orders() -> None:
    assert case(Name.UNIFORM, 300) == case(Name.UNIFORM, 300)


def test_an_order_never_has_a_sku_twice() -> None:
    assert all(len({line.sku for line in order.lines}) == len(order.lines) == 3 for order in case(Name.UNIFORM, 3_000).orders)


def test_the_hot_sku_is_one() -> None:
    assert len(case(Name.HOT_SKU, 100).stock) == 1


def test_a_storm_begins_with_nothing() -> None:
    played = case(Name.RECEIPT_STORM, 300)
    assert set(played.stock.values()) == {0}
    assert demand(played.orders).keys() <= played.stock.keys()


def test_sold_orders_are_repeated_under_new_names() -> None:
    played = case(Name.ONLINE_RETAIL, 7, [sold("a", 1, 2), sold("b", 3)])
    assert [order.order for order in played.orders] == ["a.0", "b.0", "a.1", "b.1", "a.2"]
    assert played.lines == 8
    assert played.stock == {"s1": (1 + 3 + 1 + 3 + 1) // 2, "s2": (2 + 2 + 2) // 2}
    assert {order.placed_at for order in played.orders} == {workloads.BEGIN}


def test_receipts_bring_all_that_was_ordered() -> None:
    lines = [ReceivedLine(line=number, sku=f"s{number}", good=number) for number in range(1, 26)]
    found = list(workloads.receipts([("po-1", lines), ("po-2", lines[:1])]))
    assert [len(receipt.lines) for receipt in found] == [10, 10, 5, 1]
    assert [line for receipt in found[:3] for line in receipt.lines] == lines
    assert len({receipt.receipt for receipt in found}) == 4


def test_what_is_written_for_the_loader_is_read_again(tmp_path: Path) -> None:
    order = sold("a", 1, 2).model_copy(update={"customer": Customer(id="c", name="Ann\tB\nC", email="ann@example.com")})
    loader.write(tmp_path / "file", workloads.identified([order]))
    [record] = loader.read(tmp_path / "file")
    assert (record.key.decode(), record.id, record.type, record.lines) == (order.order, order.order, OrderPlaced.TYPE, 2)
    assert OrderPlaced.model_validate_json(record.value) == order


def records(*lines: int) -> list[loader.Record]:
    return [loader.Record(b"k", str(number), "t", count, b"") for number, count in enumerate(lines)]


def test_without_a_rate_everything_is_appended_at_once() -> None:
    given = records(*[1] * 4_500)
    pieces = list(loader.slices(given, 0.0))
    assert [len(piece) for _, piece in pieces] == [2_000, 2_000, 500]
    assert {due for due, _ in pieces} == {0.0}


def test_a_steady_rate_counts_lines() -> None:
    given = records(*[3] * 1_000)
    pieces = list(loader.slices(given, 1_500.0))
    assert [record for _, piece in pieces for record in piece] == given
    for due, piece in pieces:
        assert due == pytest.approx(int(piece[0].id) * 3 / 1_500)
    assert all(later - due >= loader.TICK_SECONDS for (due, _), (later, _) in pairwise(pieces))
    assert pieces[-1][0] == pytest.approx(2.0, abs=0.01)


def event(at: int, type_: str, order: str, *lines: int) -> ConsumerRecord:
    headers = (("ce_type", type_.encode()),) if type_ else ()
    value = orjson.dumps({"order": order, "lines": [{"line": line, "sku": "s"} for line in lines]})
    return ConsumerRecord("t", 0, 0, at, 1, order.encode(), value, None, 0, len(value), headers)


def test_only_decisions_count() -> None:
    found = [event(1, OrderAccepted.TYPE, "a", 1), event(2, LineAllocated.TYPE, "a", 1, 2), event(3, "", "b", 1)]
    assert list(log.told(found)) == [(2, (("a", 1), ("a", 2))), (3, (("b", 1),))]


def test_an_order_waits_for_the_last_of_its_lines() -> None:
    first = log.first_told(
        [log.Told(30, (("a", 1),)), log.Told(20, (("a", 1), ("b", 1))), log.Told(70, (("a", 2),)), log.Told(5, (("b", 1),))], since=10
    )
    assert first == {("a", 1): 20, ("b", 1): 20, ("a", 2): 70}
    assert log.order_waits({"a": 10, "b": 15}, first, {"a": [1, 2], "b": [1]}) == [60, 5]


def test_a_line_without_a_decision_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 lines were never decided, such as \('a', 2\)"):
        log.waits({("a", 1): 0, ("a", 2): 0}, {("a", 1): 1})


def test_percentiles_are_values_that_were_seen() -> None:
    assert log.latency(range(1, 201)) == Latency(p50=100, p99=198)
    assert log.latency([7]) == Latency(p50=7, p99=7)


def sample(seconds: float, *, lines: int = 1_000, cpu: float = 100, memory: float = 50, mails: float | None = None) -> Sample:
    return Sample(
        lines=lines, seconds=seconds, latency_ms=Latency(p50=seconds, p99=2 * seconds), cpu_us_per_line={"orders": cpu},
        wal_bytes_per_line=900, kafka_bytes_per_line=None, memory_mb={"orders": memory}, mails_per_second=mails,
    )  # fmt: skip


def test_ratios_are_medians_of_each_rounds_own() -> None:
    rounds = [
        {OURS: sample(1, mails=10), NAIVE: sample(10), LIMIT: sample(0.5)},  # 10 ×, 1/2
        {OURS: sample(2, cpu=300, mails=30), NAIVE: sample(60), LIMIT: sample(0.5)},  # 30 ×, 1/4
        {OURS: sample(4, cpu=200, mails=20), NAIVE: sample(80), LIMIT: sample(0.4)},  # 20 ×, 1/10
    ]
    found = result.workload(rounds, {"LIMIT_GRAIN": "batch"})
    assert found.lines_per_second == 500
    assert found.ratio_naive == 20
    assert found.fraction_of_limit == 0.25
    assert found.latency_ms == Latency(p50=2, p99=4)
    assert found.cpu_us_per_line == {"orders": 200}
    assert (found.wal_bytes_per_line, found.kafka_bytes_per_line, found.mails_per_second) == (900, None, 20)
    assert found.lines_per_second_by_round[OURS] == [1000, 500, 250]
    assert found.rivals[LIMIT].settings == {"LIMIT_GRAIN": "batch"}
    assert found.rivals[NAIVE].settings == {}


def test_one_system_alone_has_no_ratios() -> None:
    found = result.workload([{NAIVE: sample(10)}])
    assert (found.lines_per_second, found.ratio_naive, found.fraction_of_limit, found.latency_ms) == (None, None, None, None)
    assert found.naive_lines_per_second == 100


def test_the_peak_is_the_highest_of_all_rounds() -> None:
    assert result.peaks([{OURS: sample(1, memory=70)}, {OURS: sample(1, memory=60), NAIVE: sample(1, memory=999)}]) == {"orders": 70}


def test_steady_needs_uniform_before_it() -> None:
    assert Plan(workloads=(Name.STEADY,)).in_order() == (Name.UNIFORM, Name.STEADY)
    assert Plan(workloads=(Name.HOT_SKU, Name.ONLINE_RETAIL)).in_order() == (Name.ONLINE_RETAIL, Name.HOT_SKU)


def test_outside_of_a_checkout_only_ours_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals.check([OURS, NAIVE, LIMIT])
    monkeypatch.setattr(rivals, "ROOT", tmp_path)
    rivals.check([OURS])
    with pytest.raises(UserError, match="in a checkout only"):
        rivals.check([OURS, LIMIT])
