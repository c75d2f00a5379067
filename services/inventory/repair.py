"""What a broken SKU is put right from: its ledger. If one entry of the ledger itself is wrong, the SKU and its lines show it, and
another entry makes up for it.

Afterwards the SKU is decided anew like one whose supply has been rescheduled, and everyone concerned is told again.
"""

from collections.abc import Iterator, Mapping

from services.inventory.domain import Demand, Ledger, LineKey, Moved, Movement, MovementKind, Sku, State
from shared.service import Context, Corrected, IrreparableError, Repair


def repair(state: State, message: Repair, context: Context) -> Iterator[Corrected]:
    """Balances and lines as the ledger has them, or entries that it lacks. Raises IrreparableError if nothing tells what is right."""
    sku, cause = message.key, context.cause
    stock, ledger = state.skus.get(sku), state.ledgers[sku]
    lines = {key: line for key, line in state.demands.items() if line.sku == sku}
    if stock is None:
        raise IrreparableError("there is no such SKU, only entries of the ledger about it")
    if unknown := ledger.lines.keys() - lines.keys():
        raise IrreparableError(f"the ledger moves lines that are not there: {sorted(unknown)}")
    wrong = {key: line for key, line in lines.items() if _stands(line) != ledger.lines.get(key, Moved())}
    if wrong and _agree(stock, lines):
        yield from _make_up(state, stock, wrong, ledger, cause)
    else:
        yield from _restore(state, stock, lines, ledger)
    yield from _take_back(state, sku, cause)
    state.repaired.add(sku)
    state.touched[sku] = state.freed[sku] = state.rescheduled[sku] = cause
    state.unanswered |= {key for key in lines if state.demands[key].wanted > state.demands[key].shipped}


def _restore(state: State, stock: Sku, lines: Mapping[LineKey, Demand], ledger: Ledger) -> Iterator[Corrected]:
    """The SKU and its lines as the ledger has them. What was wrong counts as never having been."""
    told = {key: _as_told(line, ledger.lines.get(key, Moved())) for key, line in lines.items()}
    _possible(stock, lines, told, ledger)
    balances = stock._replace(on_hand=ledger.on_hand, allocated=ledger.allocated, waiting=ledger.waiting, received_total=ledger.received)
    for key, line in told.items():
        yield from _differences(f"line {key[0]}/{key[1]}", lines[key], line)
    yield from _differences(f"SKU {stock.sku}", stock, balances)
    state.demands.update(told)
    state.stored_demands.update(told)
    state.skus[stock.sku] = state.stored_skus[stock.sku] = balances


def _as_told(line: Demand, moved: Moved) -> Demand:
    """The line as the ledger has it. What is refused never entered the ledger."""
    served = moved.held + moved.shipped
    wanted, ship_by = served + line.refused + moved.waiting, line.ship_by if moved.waiting else None
    return line._replace(wanted=wanted, served=served, shipped=moved.shipped, ship_by=ship_by)


def _possible(stock: Sku, lines: Mapping[LineKey, Demand], told: Mapping[LineKey, Demand], ledger: Ledger) -> None:
    """Raises IrreparableError if what the ledger says cannot be."""
    if impossible := {key: moved for key, moved in ledger.lines.items() if min(moved) < 0}:
        raise IrreparableError(f"entries of the ledger are missing or too many: {impossible}")
    if stock.counted and not ledger.counts:
        raise IrreparableError("the ledger has lost its count: count the units again")
    if stock.on_hand - ledger.on_hand == stock.received_total - ledger.received != 0:
        raise IrreparableError(
            f"{stock.on_hand - ledger.on_hand} units more are on hand and received than the ledger has: purchasing knows its receipts"
        )
    if ledger.on_hand < 0:
        raise IrreparableError(f"by the ledger {-ledger.on_hand} units more have left the house than were ever in it: count them")
    for key, line in told.items():
        if line.refused and line.wanted != lines[key].wanted:
            raise IrreparableError(
                f"line {key[0]}/{key[1]} wants {lines[key].wanted}, refused are {line.refused}, and by the ledger it is served"
                f" {line.served} and waits for {line.open}: only orders knows what is wanted"
            )


def _stands(line: Demand) -> Moved:
    return Moved(line.served - line.shipped, line.shipped, line.open)


def _agree(stock: Sku, lines: Mapping[LineKey, Demand]) -> bool:
    """Whether the SKU and its lines, two tables, say the same."""
    held, waiting = sum(line.served - line.shipped for line in lines.values()), sum(line.open for line in lines.values())
    return (stock.allocated, stock.waiting) == (held, waiting)


def _make_up(state: State, stock: Sku, wrong: Mapping[LineKey, Demand], ledger: Ledger, cause: str) -> Iterator[Corrected]:
    """An entry for each line of which entries are missing, or wrong."""
    on_hand = ledger.on_hand
    for (order, number), line in wrong.items():
        moved, stands = ledger.lines.get((order, number), Moved()), _stands(line)
        held, shipped, waiting = (now - was for now, was in zip(stands, moved, strict=True))
        on_hand -= shipped
        state.movements.append(
            Movement(stock.sku, MovementKind.CORRECTED, -shipped, held, waiting, order=order, line=number, cause=cause)
        )  # fmt: skip
        yield Corrected(f"ledger of line {order}/{number}: (held, shipped, waiting) {tuple(moved)} → {tuple(stands)}")
    if (stock.on_hand, stock.received_total) != (on_hand, ledger.received):
        raise IrreparableError(f"the ledger has lost entries, and {stock.on_hand} units are on hand or {on_hand}: count them")


def _take_back(state: State, sku: str, cause: str) -> Iterator[Corrected]:
    """Units that were set aside and are not in the house: they wait again, the last in the queue first."""
    stock = state.skus[sku]
    missing = stock.allocated - stock.on_hand
    for line in sorted((line for line in state.demands.values() if line.sku == sku), key=lambda line: line.place, reverse=True):
        units = min(missing, line.served - line.shipped)
        if units > 0:
            missing -= units
            state.demands[line.key] = line._replace(served=line.served - units)
            state.movements.append(
                Movement(
                    sku, MovementKind.WITHDRAWN, allocated=-units, order=line.order, line=line.line,
                    undoes=MovementKind.ALLOCATED, cause=cause,
                )
            )  # fmt: skip
            yield Corrected(f"line {line.order}/{line.line}: {units} units that are not in the house were taken back")
    state.skus[sku] = stock._replace(allocated=min(stock.allocated, stock.on_hand))


def _differences(what: str, before: Sku | Demand, after: Sku | Demand) -> Iterator[Corrected]:
    for name, was, is_ in zip(before._fields, before, after, strict=True):
        if was != is_ and name != "ship_by":
            yield Corrected(f"{what}: {name} {was} → {is_}")
