"""A database that was restored from a backup holds, once it has read back, for everyone what they were told is held for them."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.fairness import unfair
from shared.contracts.base import Message
from shared.contracts.inventory import DemandRefused, DemandServed, ShortageChanged, StockLevelChanged
from shared.contracts.warehouse import BackorderPolicy
from tests.unit.inventory.house import SERVICE, House, counted, day, defined, demand, received, supply
from tests.unit.inventory.test_properties import check_balances
from tests.unit.inventory.world import World, batches

assert SERVICE.read_back
READ_BACK = SERVICE.read_back


@dataclass
class Tapped(House):
    """A house of which everything that it hears and tells is kept."""

    heard: list[Message] = field(default_factory=list)
    told_ever: list[list[Message]] = field(default_factory=list)

    def apply(self, *messages: Any, **how: Any) -> House:
        super().apply(*messages, **how)
        self.heard += [message for message in messages if isinstance(message, Message)]
        self.told_ever.append(self.sent)
        return self


def backup(house: House) -> House:
    """Its rows as they are now."""
    return Tapped(
        dict(house.skus),
        dict(house.demands),
        dict(house.supplies),
        dict(house.receipts),
        list(house.ledger),
        list(house.numbers),
        house.number,
    )


def by_topic(heard: list[Message], told: list[Message]) -> list[list[Message]]:
    """As it is read back: topic by topic."""
    since = (*heard, *told)
    return [[message for message in since if message.TOPIC is topic and type(message) in READ_BACK.routes] for topic in READ_BACK.topics]


def read_back(house: House, heard: list[Message], told: list[Message], random: Random) -> None:
    """What was heard and told since, topic by topic, in transactions of any length: nothing is told, nothing refused."""
    house.number += 1_000_000
    for messages in by_topic(heard, told):
        while messages:
            count = random.randint(1, 6)
            house.apply(*messages[:count], service=READ_BACK)
            assert (house.sent, house.refusals) == ([], [])
            del messages[:count]


def go_on(house: House) -> list[Message]:
    """What has waited is done; answers what is told then."""
    timers, house.timers = list(house.timers.values()), {}
    return house.apply(*timers).sent


def newest(told: list[Message], kind: type[Any]) -> dict[Any, Any]:
    """What whoever keeps the newest of each level knows."""
    found: dict[Any, Any] = {}
    for message in told:
        if type(message) is kind and (message.level not in found or found[message.level].version < message.version):  # type: ignore[attr-defined]
            found[message.level] = message
    return found


@settings(max_examples=100, deadline=None)
@given(batches, st.floats(0, 1), st.integers(0, 2), st.integers(0, 2**32))
def test_whatever_is_lost_everyone_keeps_what_they_were_told(steps, share, untold, seed):
    """`untold`: of so many of the last lost transactions nothing had been published yet."""
    house = Tapped()
    world = World(house)
    restored, heard, kept = backup(house), 0, int(share * len(steps))
    for number, batch in enumerate(steps):
        if number == kept:
            restored, heard = backup(house), len(house.heard)
        known = number <= len(steps) - untold  # nobody ships what nobody was told of
        house.apply(*world.messages([step for step in batch if known or step[0] != "ship"]))
    told = [message for sent in house.told_ever[: max(kept, len(steps) - untold)] for message in sent]
    answers = newest(told, DemandServed)
    read_back(restored, house.heard[heard:], told, Random(seed))
    told += go_on(restored)
    assert restored.timers == {}
    check_balances(restored)
    for key, line in house.demands.items():
        mine = restored.demands[key]
        assert (mine.wanted, mine.shipped, mine.demand_version) == (line.wanted, line.shipped, line.demand_version)
        if answer := answers.get(f"{line.order}/{line.line}"):
            assert mine.served >= min(answer.served, max(line.wanted, line.shipped)), "nobody's units are taken back"
            assert mine.promise_version >= answer.promise_version
            assert mine.promise_version > answer.promise_version or mine.ship_by in (answer.ship_by, None)
    if not untold:
        assert {key: (line.served, line.refused) for key, line in restored.demands.items()} == {
            key: (line.served, line.refused) for key, line in house.demands.items()
        }
    for sku, stock in house.skus.items():
        assert (restored.skus[sku].on_hand, restored.skus[sku].received_total) == (stock.on_hand, stock.received_total)
    check_known(restored, told)
    world.house = restored
    for batch in steps:
        restored.apply(*world.messages(batch))
        check_balances(restored)
        assert restored.refusals == []
    assert list(unfair(restored.entries())) == []


def check_known(house: House, told: list[Message]) -> None:
    """Whoever keeps the newest of every level knows the whole state."""
    answers, shortages, shown = (newest(told, kind) for kind in (DemandServed, ShortageChanged, StockLevelChanged))
    for (order, number), line in house.demands.items():
        answer = answers[f"{order}/{number}"]
        assert (answer.served, answer.refused, answer.ship_by) == (line.served, line.refused, line.ship_by)
        assert (answer.promise_version, answer.demand_version) == (line.promise_version, line.demand_version)
    for sku, stock in house.skus.items():
        if sku in shortages:
            assert (shortages[sku].waiting, shortages[sku].needed_by, shortages[sku].received_total) == stock.shortage
        else:
            assert stock.shortage == (0, None, 0)
        if stock.shown:
            assert (shown[sku].available, shown[sku].backorderable, shown[sku].next_date) == stock.shown


def restored_after(house: Tapped, *transactions: list[Message]) -> tuple[House, list[Message]]:
    """The house as it is now, restored after these transactions have been lost; and what it tells then."""
    saved, heard, told = backup(house), len(house.heard), len(house.told_ever)
    for messages in transactions:
        house.apply(*messages)
        assert house.refusals == []
    read_back(saved, house.heard[heard:], [message for sent in house.told_ever[told:] for message in sent], Random(1))
    return saved, go_on(saved)


def house_of(*messages: Message) -> Tapped:
    house = Tapped()
    house.apply(*messages)
    return house


def test_who_was_served_before_one_who_came_late_stays_served() -> None:
    """Anew, the one who ordered first would be: it is heard of first now."""
    house = house_of(defined(), counted(5))
    restored, _ = restored_after(house, [demand("O2", 5)], [demand("O1", 5)])
    assert {order: line.served for (order, _), line in restored.demands.items()} == {"O1": 0, "O2": 5}


def test_what_has_shipped_is_gone_whoever_waits() -> None:
    house = house_of(defined(), demand("O1", 3), demand("O2", 3))
    restored, _ = restored_after(house, [received(3)], [demand("O1", 3, 2, shipped=3)], [received(1, receipt="R-2")])
    assert (restored.skus["A"].on_hand, restored.skus["A"].allocated) == (1, 1)
    assert [(line.served, line.shipped) for line in restored.demands.values()] == [(3, 3), (1, 0)]


def test_a_refusal_stays_and_what_was_never_answered_is() -> None:
    house = house_of(defined(backorder=BackorderPolicy.DENY), counted(1))
    restored, told = restored_after(house, [demand("O1", 3)])
    assert restored.demands["O1", 1].refused == 2
    assert [message for message in told if isinstance(message, DemandRefused | DemandServed)] == []
    saved = backup(house_of(defined(backorder=BackorderPolicy.DENY), counted(1)))
    read_back(saved, [demand("O1", 3)], [], Random(1))
    assert saved.skus["A"].waiting == 0, "it does not wait before it is decided"
    told = go_on(saved)
    assert [(message.quantity, message.demand_version) for message in told if isinstance(message, DemandRefused)] == [(2, 1)]
    assert [message.served for message in told if isinstance(message, DemandServed)] == [1]


def test_a_promise_that_was_told_keeps_its_version() -> None:
    house = house_of(defined(), demand("O1", 2))
    restored, told = restored_after(house, [supply(2, day(3), 1)], [supply(2, day(5), 2)])
    line = restored.demands["O1", 1]
    assert (line.ship_by, line.promise_version) == (day(6), 2)
    assert [message for message in told if isinstance(message, DemandServed)] == []


def test_everyone_is_told_of_a_sku_once_and_only_afterwards() -> None:
    house = house_of(defined(), demand("O1", 2))
    _, told = restored_after(house, [received(1)], [received(1, receipt="R-2")], [demand("O1", 2, 2, shipped=2)])
    assert [type(message) for message in told] == [ShortageChanged, StockLevelChanged]


def test_a_receipt_that_is_told_again_is_no_news_unless_it_differs() -> None:
    house = house_of(defined(), received(5))
    assert house.apply(received(5)).refusals == []
    assert house.apply(received(4)).refusals == ["already_received"]
    assert house.skus["A"].on_hand == 5
