"""Every mutant, with the check that must notice it."""

from tests.simulation.mutants import guards, rules
from tests.simulation.mutants.surgery import Mutant
from tests.simulation.steps import crowded

SEEDS = 60
"""So many at most until a mutant is found."""

LETTERS = "nothing is parked, and only poison is refused"
FINISHED = "everything wanted has shipped"
LEDGER = "inventory: the ledger's sums are the balances"
BROKEN = "nothing breaks but on purpose"
ORDER = "what is told of a line is in order"

MUTANTS: tuple[Mutant, ...] = (
    Mutant("inbox skipped", guards.no_inbox, LETTERS),
    Mutant(
        "a gap before next applied",
        guards.gap_before_next,
        "orders and inventory agree on every claim",
        "looking where the database stands after a rebalance",
    ),
    Mutant("outbox outside the transaction", guards.outbox_apart, ORDER),
    Mutant("relay deletes before the acknowledgement", guards.deleted_before_acknowledged, FINISHED),
    Mutant("relay goes on past a failed send", guards.past_a_failed_send, ORDER),
    Mutant("Kafka acknowledged before the commit", guards.acknowledged_first, FINISHED, "the partition rows"),
    Mutant(
        "aggregates without their locks (Vendure, D10)", guards.unlocked, "purchasing: a SKU's committed units are the sum over its lines"
    ),
    Mutant("locks in no order", guards.unsorted_locks, "no two transactions wait for each other", mixture=crowded),
    Mutant("a timer that fires again and again", guards.timer_left, "everything settles"),
    Mutant(
        "a timer fired by two leaders",
        guards.fired_by_two_leaders,
        "a purchase order is issued once",
        "the locks of what timers are about",
        mixture=crowded,
    ),
    Mutant("dead letter dropped", guards.dead_letter_dropped, LETTERS),
    Mutant("parked key overtaken", guards.parked_key_overtaken, LETTERS),
    Mutant("a level with a lower version applied", guards.lower_version_applied, LETTERS, "the inbox, for our own records"),
    Mutant("number drawn before the locks", guards.number_before_locks, "the versions of a level rise"),
    Mutant("existing allocations not subtracted (Saleor, D1)", rules.allocations_not_subtracted, BROKEN),
    Mutant("answers bound late (Saleor, D2)", rules.answers_bound_late, FINISHED),
    Mutant("the first supply covers all (OFBiz, D3)", rules.first_supply_covers_all, "a promise is no earlier than supply allows"),
    Mutant("a partial shipment deducts all (Medusa, D5)", rules.partial_shipment_deducts_all, BROKEN),
    Mutant("a unit spoken for given again (Spree, D6)", rules.spoken_for_given_again, BROKEN),
    Mutant(
        "lines of a receipt taken together (Magento, D8)",
        rules.receipt_lines_taken_together,
        "inventory booked what purchasing received, receipt by receipt",
    ),
    Mutant("queue without a tie-break (Solidus, D9)", rules.queue_without_tie_break, "no line overtakes another"),
    Mutant("last come, first served", rules.last_come_first_served, "no line overtakes another"),
    Mutant("cancelling an unfilled unit frees stock (Spree)", rules.unfilled_cancellation_frees_stock, LEDGER),
    Mutant("answers added up", rules.answers_added_up, LETTERS),
    Mutant("need without receipts", rules.need_without_receipts, "purchasing: every need is bought, or an operator's"),
    Mutant("planned units forgotten", rules.planned_units_forgotten, "what is bought is what is needed"),
)
