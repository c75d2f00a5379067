"""What must always be true of the stock; each check answers the rows that violate it."""

from shared.service import Watched

CHECKS: dict[str, str] = {
    "the ledger's sums are the balances": """
        SELECT sku, stock.on_hand, moved.on_hand AS ledger_on_hand, stock.allocated, moved.allocated AS ledger_allocated,
            stock.waiting, moved.waiting AS ledger_waiting
        FROM (SELECT sku, on_hand, allocated, waiting FROM sku WHERE on_hand <> 0 OR allocated <> 0 OR waiting <> 0) AS stock
        FULL JOIN (
            SELECT sku, sum(on_hand) AS on_hand, sum(allocated) AS allocated, sum(waiting) AS waiting FROM ledger GROUP BY sku
        ) AS moved USING (sku)
        WHERE coalesce(stock.on_hand, 0) <> coalesce(moved.on_hand, 0) OR coalesce(stock.allocated, 0) <> coalesce(moved.allocated, 0)
            OR coalesce(stock.waiting, 0) <> coalesce(moved.waiting, 0)""",
    "the ledger's order is the journal's": """
        SELECT sku, id, number, before
        FROM (SELECT sku, id, number, lag(number) OVER (PARTITION BY sku ORDER BY id) AS before FROM ledger) AS entry
        WHERE number < before""",
    "allocated is what is served and not shipped, waiting what is open": """
        SELECT sku, allocated, lines.held, waiting, lines.open
        FROM (SELECT sku, allocated, waiting FROM sku WHERE allocated <> 0 OR waiting <> 0) AS stock
        FULL JOIN (
            SELECT sku, sum(served - shipped) AS held, sum(wanted - served - refused) FILTER (WHERE wanted > served + refused) AS open
            FROM demand GROUP BY sku
        ) AS lines USING (sku)
        WHERE coalesce(allocated, 0) <> coalesce(lines.held, 0) OR coalesce(waiting, 0) <> coalesce(lines.open, 0)""",
    "free units are never negative": "SELECT sku, on_hand, allocated FROM sku WHERE on_hand < allocated OR allocated < 0",
    "nothing lies free while a line waits": """
        SELECT sku, on_hand - allocated AS free, waiting FROM sku
        WHERE on_hand > allocated AND EXISTS (SELECT FROM demand WHERE demand.sku = sku.sku AND wanted > served + refused)
            AND NOT EXISTS (SELECT FROM runtime.timer WHERE kind = 'StockAgain' AND key = sku)""",
    "what was received is in the ledger, once": """
        SELECT sku, received_total, booked.units
        FROM (SELECT sku, received_total FROM sku WHERE received_total <> 0) AS stock
        FULL JOIN (SELECT sku, sum(on_hand) AS units FROM ledger WHERE kind = 'received' GROUP BY sku) AS booked USING (sku)
        WHERE received_total IS DISTINCT FROM booked.units""",
    "a line is served what it wants, or what has shipped": """
        SELECT sku, order_id, line, wanted, served, refused, shipped FROM demand
        WHERE served > greatest(wanted, shipped) OR shipped > served OR served + refused > greatest(wanted, shipped) OR refused < 0""",
    "each line moved as the ledger says": """
        SELECT sku, order_id, line, claim.held, moved.held AS ledger_held, claim.shipped, moved.shipped AS ledger_shipped,
            claim.open, moved.open AS ledger_open
        FROM (
            SELECT sku, order_id, line, served - shipped AS held, shipped, greatest(0, wanted - served - refused) AS open FROM demand
        ) AS claim
        FULL JOIN (
            SELECT sku, order_id, line, sum(allocated) AS held, -sum(on_hand) AS shipped, sum(waiting) AS open
            FROM ledger WHERE order_id IS NOT NULL GROUP BY sku, order_id, line
        ) AS moved USING (sku, order_id, line)
        WHERE coalesce(claim.held, 0) <> coalesce(moved.held, 0) OR coalesce(claim.shipped, 0) <> coalesce(moved.shipped, 0)
            OR coalesce(claim.open, 0) <> coalesce(moved.open, 0)""",
    "who does not wait has no promise": "SELECT sku, order_id, line, ship_by FROM demand WHERE ship_by IS NOT NULL AND wanted <= served + refused",
}
"""Name → SQL whose rows are violations (design.md section 8, numbers 1, 2, 4)."""

WATCHED = (
    Watched(
        "sku",
        dict.fromkeys(("sku", "demand", "ledger"), "sku"),
        CHECKS,
        history="SELECT number, cause AS message FROM ledger WHERE sku = $1 AND number > $2 ORDER BY id",
        sliced=False,  # an index by SKU would cost each movement more than it is worth: the whole ledger is read now and then
    ),
)
"""The same, looked at while the service works: a broken SKU is quarantined."""

COUNTS: dict[str, str] = {
    "SKUs": "SELECT count(*) FROM sku",
    "lines": "SELECT count(*) FROM demand",
    "waiting lines": "SELECT count(*) FROM demand WHERE wanted > served + refused",
    "movements": "SELECT count(*) FROM ledger",
}
"""Name → SQL answering how many were checked."""

PROMISE_IN_THE_PAST = "SELECT order_id, line, sku, ship_by FROM demand WHERE ship_by < $1::date"
"""Promises before $1, today's calendar day in the warehouse's zone: none, once messages have settled."""

STATE: dict[str, str] = {
    # A row that was only ever locked says nothing yet.
    "sku": "SELECT * FROM sku WHERE version > 0 ORDER BY sku",
    "demand": "SELECT * FROM demand ORDER BY order_id, line",
    "supply": "SELECT * FROM supply ORDER BY purchase_order, line",
    "ledger": """
        SELECT sku, number, kind, on_hand, allocated, waiting, order_id, receipt, purchase_order, line, undoes, cause, at
        FROM ledger ORDER BY sku, id""",
}
"""Table → its rows by what they mean, in an order of their own: no ids that the database gave, no wall times (design.md section 8, number 9)."""
