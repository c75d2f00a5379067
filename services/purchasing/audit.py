"""What is always true of purchasing's tables. Each check answers the rows that break it, at any moment between transactions."""

from shared.service import Watched

OF_SKUS: dict[str, str] = {
    "a SKU's committed units are the sum over its lines": """
        SELECT sku, committed, coalesce(lines.total, 0) AS total
        FROM sku LEFT JOIN (SELECT sku, sum(ordered - declined - closed_short) AS total FROM purchase_line GROUP BY sku) AS lines USING (sku)
        WHERE committed <> coalesce(lines.total, 0)
    """,
    "every need is bought, or an operator's": """
        SELECT sku, waiting, received_total, committed FROM sku
        WHERE waiting + received_total > committed AND NOT EXISTS (SELECT FROM exception WHERE exception.sku = sku.sku AND closed_at IS NULL)
    """,
    "an open exception has a need": """
        SELECT sku, quantity, waiting, received_total, committed FROM exception JOIN sku USING (sku)
        WHERE closed_at IS NULL AND quantity <> waiting + received_total - committed
    """,
    "nothing is bought twice for one need": """
        SELECT sku, shortage_version, attempt, count(*) FROM purchase_line GROUP BY 1, 2, 3 HAVING count(*) > 1
    """,
}

# A timer is due in its table, or parked.
OF_ORDERS: dict[str, str] = {
    "ordered = outstanding + received + declined + closed short, none negative": """
        SELECT purchase_order, line, ordered, received, declined, closed_short FROM purchase_line
        WHERE least(ordered, received, declined, closed_short, ordered - received - declined - closed_short) < 0
    """,
    "a line's received units are those of its receipts": """
        SELECT purchase_order, line, received, closed_short, coalesce(booked.good, 0) AS booked, coalesce(booked.short, 0) AS booked_short
        FROM purchase_line LEFT JOIN (
            SELECT purchase_order, (booking ->> 'line')::int AS line, sum((booking ->> 'good')::bigint) AS good,
                sum((booking ->> 'closed_short')::bigint) AS short
            FROM receipt, jsonb_array_elements(lines) AS booking GROUP BY 1, 2
        ) AS booked USING (purchase_order, line)
        WHERE received <> coalesce(booked.good, 0) OR closed_short <> coalesce(booked.short, 0)
    """,
    "a planned order has a window that will close": """
        SELECT purchase_order, supplier, window_due FROM purchase_order
        WHERE status = 'planned'
          AND NOT EXISTS (SELECT FROM runtime.timer WHERE kind = 'WindowClosed' AND key = supplier AND due = window_due)
          AND NOT EXISTS (SELECT FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = 'supplier:' || supplier)
    """,
    "issued units with a date become overdue": """
        SELECT purchase_order, line, sku, expected_on FROM purchase_line JOIN purchase_order USING (purchase_order)
        WHERE status = 'issued' AND expected_on IS NOT NULL AND ordered > declined + closed_short + received
          AND NOT EXISTS (SELECT FROM runtime.timer WHERE kind = 'SupplyOverdue' AND key = purchase_order || '/' || line)
          AND NOT EXISTS (SELECT FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = 'purchase_order:' || purchase_order)
    """,
    "an issued order has lines, each with units": """
        SELECT purchase_order, line FROM purchase_order LEFT JOIN purchase_line USING (purchase_order)
        WHERE status = 'issued' AND coalesce(ordered, 0) = 0
    """,
}

CHECKS: dict[str, str] = OF_SKUS | OF_ORDERS

WATCHED = (
    Watched("sku", dict.fromkeys(("sku", "purchase_line", "exception"), "sku"), OF_SKUS, sliced=False),  # no index for it: rarely asked
    Watched("purchase_order", dict.fromkeys(("purchase_order", "purchase_line", "receipt"), "purchase_order"), OF_ORDERS),
)
"""The same, looked at while the service works: a broken SKU or purchase order is quarantined."""

COUNTS: dict[str, str] = {
    "skus": "SELECT count(*) FROM sku",
    "purchase orders": "SELECT count(*) FROM purchase_order",
    "purchase lines": "SELECT count(*) FROM purchase_line",
    "receipts": "SELECT count(*) FROM receipt",
    "open exceptions": "SELECT count(*) FROM exception WHERE closed_at IS NULL",
}

STATE: dict[str, str] = {
    # A row that was only ever locked says nothing yet.
    "supplier": "SELECT * FROM supplier WHERE next_number > 1 ORDER BY supplier",
    "sku": "SELECT * FROM sku WHERE shortage_version >= 0 ORDER BY sku",
    "offer": "SELECT * FROM offer ORDER BY supplier, sku",
    "purchase_order": "SELECT * FROM purchase_order ORDER BY purchase_order",
    "purchase_line": "SELECT * FROM purchase_line ORDER BY purchase_order, line",
    "receipt": "SELECT * FROM receipt ORDER BY receipt",
    "acknowledgement": "SELECT * FROM acknowledgement ORDER BY supplier, acknowledgement",
    "exception": "SELECT sku, reason, quantity, opened_at, closed_at FROM exception ORDER BY sku, id",
}
"""Table → its rows by what they mean, in an order of their own: no ids that the database gave, no wall times (design.md section 8, number 9)."""
