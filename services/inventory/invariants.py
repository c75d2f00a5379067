"""What is true of every SKU that a transaction touched, looked at before it is saved.

A second opinion: nothing here uses the rules that it checks. Only what was loaded is looked at, so the cost is that of the
transaction. The same invariants over whole tables are in `audit.py`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from services.inventory.domain import Demand, LineKey, MovementKind, Place, State
from shared.contracts.base import Message
from shared.contracts.inventory import DemandServed, ShortageChanged
from shared.service import Broken, Check, Context


def balances(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """On hand, allocated and waiting change by this transaction's movements, what was received by those of receipts. A correction of
    the ledger moves nothing."""
    moved: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for movement in state.movements:
        if movement.kind is MovementKind.CORRECTED:
            continue
        sums = moved[movement.sku]
        sums[0] += movement.on_hand
        sums[1] += movement.allocated
        sums[2] += movement.waiting
        if movement.kind is MovementKind.RECEIVED:
            sums[3] += movement.on_hand
    for sku in {*state.touched, *moved}:
        now, was = state.skus[sku], state.stored_skus[sku]
        change = [
            now.on_hand - was.on_hand, now.allocated - was.allocated, now.waiting - was.waiting, now.received_total - was.received_total,
        ]  # fmt: skip
        if change != moved[sku]:
            yield Broken(f"sku:{sku}", f"on hand, allocated, waiting and received change by {change}, the ledger by {moved[sku]}")


def in_house(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Nothing is set aside that is not there."""
    for sku in state.touched:
        stock = state.skus[sku]
        if not 0 <= stock.allocated <= stock.on_hand or stock.waiting < 0:
            yield Broken(f"sku:{sku}", f"on hand {stock.on_hand}, allocated {stock.allocated}, waiting {stock.waiting}")


def lines(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Every line changes by its own movements."""
    moved: defaultdict[LineKey, list[int]] = defaultdict(lambda: [0, 0, 0])
    for movement in state.movements:
        if movement.order is not None and movement.line is not None and movement.kind is not MovementKind.CORRECTED:
            key = movement.order, movement.line
            if key not in state.demands:
                yield Broken(f"sku:{movement.sku}", f"the ledger moves line {key[0]}/{key[1]}, which is not there")
            sums = moved[key]
            sums[0] += movement.allocated
            sums[1] -= movement.on_hand
            sums[2] += movement.waiting
    for key, line in state.demands.items():
        was = state.stored_demands.get(key)
        if was is line and key not in moved:
            continue
        held, shipped, waits = (was.served - was.shipped, was.shipped, _open(was)) if was else (0, 0, 0)
        change = [line.served - line.shipped - held, line.shipped - shipped, _open(line) - waits]
        if change != moved[key]:
            yield Broken(
                f"sku:{line.sku}", f"line {key[0]}/{key[1]}: held, shipped and waiting change by {change}, the ledger by {moved[key]}"
            )


def claims(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Nobody is served more than is wanted or has shipped, and who does not wait has no promise."""
    for key, line in state.demands.items():
        if line is state.stored_demands.get(key):
            continue
        most = max(line.wanted, line.shipped)
        if not (0 <= line.shipped <= line.served <= most and 0 <= line.refused <= most - line.served):
            yield Broken(
                f"sku:{line.sku}",
                f"line {key[0]}/{key[1]}: wanted {line.wanted}, served {line.served}, refused {line.refused}, shipped {line.shipped}",
            )
        if line.ship_by and not _open(line):
            yield Broken(f"sku:{line.sku}", f"line {key[0]}/{key[1]} waits for nothing and is promised {line.ship_by}")


def in_turn(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Who still waits stands behind everyone who was served, and nothing is left for him."""
    heads: dict[str, Demand] = {}
    for line in state.demands.values():
        if line.sku in state.touched and line.wanted > line.served + line.refused:
            head = heads.get(line.sku)
            if head is None or _place(line) < _place(head):
                heads[line.sku] = line
    if not heads:
        return
    for movement in state.movements:
        head = heads.get(movement.sku)
        if head is not None and movement.kind is MovementKind.ALLOCATED:
            served = state.demands.get((str(movement.order), int(movement.line or 0)))
            if served is not None and _place(head) < _place(served):
                yield Broken(
                    f"sku:{movement.sku}", f"{served.order}/{served.line} was served, {head.order}/{head.line} stands before it and waits"
                )
    for sku, head in heads.items():
        stock = state.skus[sku]
        if stock.on_hand > stock.allocated:
            yield Broken(f"sku:{sku}", f"{stock.on_hand - stock.allocated} units lie free while {head.order}/{head.line} waits")


def answers(state: State, told: Sequence[Message], context: Context) -> Iterator[Broken]:
    """Every claim with a new demand version is answered, once; what orders and purchasing are told is what is."""
    answered: set[LineKey] = set()
    for message in told:
        if type(message) is DemandServed:
            key = message.order, message.line
            line = state.demands[key]
            stands = line.served, line.ship_by, line.promise_version, line.demand_version, context.number
            if key in answered or stands != (
                message.served, message.ship_by, message.promise_version, message.demand_version, message.version,
            ):  # fmt: skip
                yield Broken(f"sku:{line.sku}", f"line {key[0]}/{key[1]} stands at {stands}, and was told {message!r}")
            answered.add(key)
        elif type(message) is ShortageChanged:
            stock = state.skus[message.sku]
            if (stock.waiting, stock.received_total) != (message.waiting, message.received_total):
                yield Broken(f"sku:{message.sku}", f"{stock.waiting} wait and {stock.received_total} were received, told was {message!r}")
    for key in state.unanswered - answered:
        yield Broken(f"sku:{state.demands[key].sku}", f"line {key[0]}/{key[1]} has not been answered")


CHECKS: dict[str, Check[State]] = {
    "the ledger's sums are the balances": balances,
    "free units are never negative": in_house,
    "each line moved as the ledger says": lines,
    "a line is served what it wants, or what has shipped": claims,
    "first come, first served": in_turn,
    "every claim is answered as it stands": answers,
}

WHILE_READING_BACK = {invariant: look for invariant, look in CHECKS.items() if look not in {in_turn, answers}}
"""Then nobody is served or answered: that is done afterwards (`read_back`)."""


def _open(line: Demand) -> int:
    return max(0, line.wanted - line.served - line.refused)


def _place(line: Demand) -> Place:
    return line.queue_class, line.queued_at, line.order, line.line
