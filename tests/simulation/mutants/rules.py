"""The rules with a defect, most of them known from other systems."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from services.inventory import handlers as inventory
from services.inventory.domain import Demand, Sku, State, promises
from services.purchasing import domain as purchase_rules
from shared.contracts.inventory import DemandServed
from shared.contracts.orders import DemandSet
from shared.contracts.purchasing import StockReceived
from shared.service import Context, Effect, Handler, Send
from tests.simulation.mutants.surgery import Surgery, unchecked


@unchecked
def allocations_not_subtracted(surgery: Surgery) -> None:
    """Units that belong to somebody already are taken for free (Saleor, D1)."""
    surgery.put(Sku, "free", property(lambda stock: stock.on_hand))


@unchecked
def answers_bound_late(surgery: Surgery) -> None:
    """Every answer of a transaction is about its last line (Saleor, D2)."""
    answers = inventory._answers

    def late(*args: Any) -> Iterator[Effect]:
        found = list(answers(*args))
        told = [effect for effect in found if isinstance(effect, Send) and isinstance(effect.message, DemandServed)]
        yield from (told[-1] if effect in told else effect for effect in found)

    surgery.put(inventory, "_answers", late)


@unchecked
def first_supply_covers_all(surgery: Surgery) -> None:
    """The first supply is promised to everybody, whatever its size (OFBiz, D3)."""

    def by_the_first(_ahead: int, lines: Sequence[int], *args: Any) -> Any:
        return [promises(0, [1], *args)[0] for _ in lines]

    surgery.put(inventory, "promises", by_the_first)


@unchecked
def partial_shipment_deducts_all(surgery: Surgery) -> None:
    """A shipment of some of a line's units takes all that are set aside for it off the stock (Medusa, D5)."""

    def deducting(handler: Handler[Any]) -> Handler[Any]:
        def handle(state: State, message: DemandSet, context: Context) -> Iterable[Effect]:
            known = state.demands.get((message.order, message.line))
            effects = handler(state, message, context)
            after = state.demands.get((message.order, message.line))
            if known and after and after.shipped > known.shipped and after.served > after.shipped:
                stock = state.skus[message.sku]
                state.skus[message.sku] = stock._replace(on_hand=stock.on_hand - (after.served - after.shipped))
            return effects

        return handle

    surgery.handle("inventory", DemandSet, deducting)


@unchecked
def spoken_for_given_again(surgery: Surgery) -> None:
    """Each waiting line is filled from the units that were free before the first got any (Spree, D6)."""

    def given(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
        return [(line, min(free, line.open)) for line in lines if line.open]

    surgery.put(inventory, "allocate", given)


@unchecked
def receipt_lines_taken_together(surgery: Surgery) -> None:
    """A receipt's second line is taken for a repeat of the first, since lines are not told apart (Magento, D8)."""

    def by_receipt(handler: Handler[Any]) -> Handler[Any]:
        def handle(state: State, message: StockReceived, context: Context) -> Iterable[Effect]:
            return () if any(receipt == message.receipt for receipt, *_ in state.receipts) else handler(state, message, context)

        return handle

    surgery.handle("inventory", StockReceived, by_receipt)


@unchecked
def queue_without_tie_break(surgery: Surgery) -> None:
    """Of lines that came at the same moment, whichever is read last is served first (Solidus, D9)."""

    def given(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
        last_first = list(lines)[::-1]
        return _in_this_order(free, sorted(last_first, key=lambda line: (line.queue_class, line.queued_at)))

    surgery.put(inventory, "allocate", given)


@unchecked
def last_come_first_served(surgery: Surgery) -> None:
    """Free units go to the end of the queue."""

    def given(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
        return _in_this_order(free, sorted(lines, key=lambda line: line.place, reverse=True))

    surgery.put(inventory, "allocate", given)


def _in_this_order(free: int, lines: Iterable[Demand]) -> list[tuple[Demand, int]]:
    given = []
    for line in lines:
        if units := min(free, line.open):
            given.append((line, units))
            free -= units
    return given


@unchecked
def unfilled_cancellation_frees_stock(surgery: Surgery) -> None:
    """A cancelled unit is given back to the stock although it was never set aside (Spree, 7328)."""

    def giving_back(handler: Handler[Any]) -> Handler[Any]:
        def handle(state: State, message: DemandSet, context: Context) -> Iterable[Effect]:
            known = state.demands.get((message.order, message.line))
            effects = handler(state, message, context)
            after = state.demands.get((message.order, message.line))
            if known and after and after.wanted < known.wanted and after.served == known.served:
                stock = state.skus[message.sku]
                back = min(known.wanted - after.wanted, stock.allocated)
                state.skus[message.sku] = stock._replace(allocated=stock.allocated - back)
            return effects

        return handle

    surgery.handle("inventory", DemandSet, giving_back)


@unchecked
def answers_added_up(surgery: Surgery) -> None:
    """Orders adds what inventory has set aside to what it knew, instead of taking the level."""

    def adding(handler: Handler[Any]) -> Handler[Any]:
        def handle(state: Any, message: DemandServed, context: Context) -> Iterable[Effect]:
            line = state.line(message.order, message.line)
            return handler(state, message.model_copy(update={"served": line.served + message.served}) if line else message, context)

        return handle

    surgery.handle("orders", DemandServed, adding)


@unchecked
def need_without_receipts(surgery: Surgery) -> None:
    """The need forgets what has arrived: what is on its way from the dock to the stock covers it a second time."""
    surgery.put(purchase_rules.Sku, "need", property(lambda sku: sku.waiting - sku.committed))


@unchecked
def planned_units_forgotten(surgery: Surgery) -> None:
    """The need counts only what is waiting: planning again buys again."""
    surgery.put(purchase_rules.Sku, "need", property(lambda sku: sku.waiting if sku.committed < 2 * sku.waiting else 0))
