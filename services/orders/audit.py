"""Orders' own invariants (the first, sixth and eighth of the design's list, as far as one service can see them).

`CHECKS` name → SQL that returns rows of violations only; `COUNTS` name → SQL that returns how many things were checked.
"""

from shared.service import Watched

CHECKS: dict[str, str] = {
    "a line's five amounts are not negative and add up to what was ordered": """
        SELECT order_id, line, ordered, pending, allocated, backordered, shipped, cancelled FROM line_amounts
        WHERE least(pending, allocated, backordered, shipped, cancelled) < 0
           OR pending + allocated + backordered + shipped + cancelled <> ordered
    """,
    "an order's lines are those that were accepted": """
        SELECT order_id, line, l.sku, l.ordered, told.sku AS told_sku, told.ordered AS told_ordered
        FROM line AS l FULL JOIN (
            SELECT t.order_id, (i ->> 'line')::integer AS line, i ->> 'sku' AS sku, (i ->> 'quantity')::integer AS ordered
            FROM timeline AS t, json_array_elements(t.data -> 'lines') AS i WHERE t.type = 'OrderAccepted'
        ) AS told USING (order_id, line)
        WHERE (l.sku, l.ordered) IS DISTINCT FROM (told.sku, told.ordered)
    """,
    "no line is served more than it wants": """
        SELECT order_id, line, served, ordered - cancelled AS wanted FROM line WHERE served > ordered - cancelled
    """,
    "an order's counter of open lines is right": """
        SELECT o.order_id, o.open_lines, count(l.line) AS counted
        FROM orders AS o LEFT JOIN line AS l ON l.order_id = o.order_id AND l.ordered > l.cancelled + l.shipped
        GROUP BY o.order_id, o.open_lines HAVING o.open_lines <> count(l.line)
    """,
    "an order is completed exactly when nothing of it is open, and says so once": """
        SELECT o.order_id, o.open_lines, o.completed_at, count(t.id) AS told
        FROM orders AS o LEFT JOIN timeline AS t ON t.order_id = o.order_id AND t.type = 'OrderCompleted'
        WHERE o.status = 'accepted' AND NOT EXISTS (SELECT FROM runtime.timer WHERE kind = 'ClaimAgain' AND key = o.order_id)
        GROUP BY o.order_id, o.open_lines, o.completed_at
        HAVING (o.open_lines = 0) <> (o.completed_at IS NOT NULL) OR count(t.id) <> (o.open_lines = 0)::integer
    """,
    "an order is accepted once": """
        SELECT o.order_id, count(t.id) AS told
        FROM orders AS o LEFT JOIN timeline AS t ON t.order_id = o.order_id AND t.type = 'OrderAccepted'
        WHERE o.status = 'accepted' GROUP BY o.order_id HAVING count(t.id) <> 1
    """,
    "no two events of a line have the same version": """
        SELECT t.order_id, (l ->> 'line')::integer AS line, (l ->> 'version')::bigint AS version, count(*)
        FROM timeline AS t, json_array_elements(t.data -> 'lines') AS l
        WHERE t.type LIKE 'Line%' GROUP BY 1, 2, 3 HAVING count(*) > 1
    """,
    "a line's version is that of its last event": """
        SELECT l.order_id, l.line, l.version, coalesce(told.version, 0) AS told
        FROM line AS l LEFT JOIN (
            SELECT t.order_id, (c ->> 'line')::integer AS line, max((c ->> 'version')::bigint) AS version
            FROM timeline AS t, json_array_elements(t.data -> 'lines') AS c WHERE t.type LIKE 'Line%' GROUP BY 1, 2
        ) AS told USING (order_id, line)
        WHERE l.version <> coalesce(told.version, 0)
    """,
    "the amounts last told of a line are its amounts": """
        SELECT order_id, line, told.amounts, l.pending, l.allocated, l.backordered, l.shipped, l.cancelled
        FROM (
            SELECT DISTINCT ON (1, 2) t.order_id, (c ->> 'line')::integer AS line, (c -> 'amounts')::jsonb AS amounts
            FROM timeline AS t, json_array_elements(t.data -> 'lines') AS c
            WHERE t.type LIKE 'Line%' ORDER BY 1, 2, (c ->> 'version')::bigint DESC
        ) AS told JOIN line_amounts AS l USING (order_id, line)
        WHERE told.amounts <> jsonb_build_object('ordered', l.ordered, 'pending', l.pending, 'allocated', l.allocated,
            'backordered', l.backordered, 'shipped', l.shipped, 'cancelled', l.cancelled)
    """,
    "the quantities told as shipped and cancelled add up to the line's": """
        SELECT l.order_id, l.line, l.shipped, l.cancelled, told.shipped AS told_shipped, told.cancelled AS told_cancelled
        FROM line AS l LEFT JOIN (
            SELECT t.order_id, (c ->> 'line')::integer AS line,
                   sum((c ->> 'quantity')::integer) FILTER (WHERE t.type = 'LineShipped') AS shipped,
                   sum((c ->> 'quantity')::integer) FILTER (WHERE t.type = 'LineCancelled') AS cancelled
            FROM timeline AS t, json_array_elements(t.data -> 'lines') AS c
            WHERE t.type IN ('LineShipped', 'LineCancelled') GROUP BY 1, 2
        ) AS told USING (order_id, line)
        WHERE (l.shipped, l.cancelled) IS DISTINCT FROM (coalesce(told.shipped, 0), coalesce(told.cancelled, 0))
    """,
    "every line belongs to an accepted order": """
        SELECT l.order_id, l.line, o.status FROM line AS l LEFT JOIN orders AS o USING (order_id)
        WHERE o.status IS DISTINCT FROM 'accepted'
    """,
    "no stub is left behind": "SELECT order_id FROM orders WHERE status IS NULL",
    "everything told names its cause": "SELECT order_id, id, type FROM timeline WHERE cause = ''",
}

WATCHED = (
    Watched(
        "order",
        dict.fromkeys(("orders", "line", "line_amounts", "timeline"), "order_id"),
        CHECKS,
        # What is told happens at the transaction's business time.
        history="""
            SELECT NULL::bigint AS number, cause AS message FROM timeline WHERE order_id = $1
              AND at > (SELECT business FROM runtime.journal WHERE number <= $2 ORDER BY number DESC LIMIT 1) ORDER BY id
        """,
    ),
)
"""The same, looked at while the service works: a broken order is quarantined."""

COUNTS: dict[str, str] = {
    "orders": "SELECT count(*) FROM orders",
    "lines": "SELECT count(*) FROM line",
    "events told": "SELECT count(*) FROM timeline",
}

STATE: dict[str, str] = {
    "orders": "SELECT * FROM orders ORDER BY order_id",
    "line": "SELECT * FROM line ORDER BY order_id, line",
    "timeline": "SELECT order_id, at, type, data, cause FROM timeline ORDER BY order_id, id",
    "cancellation": "SELECT * FROM cancellation ORDER BY order_id, request",
    "shipment": "SELECT * FROM shipment ORDER BY order_id, shipment",
}
"""Table → its rows by what they mean, in an order of their own: no ids that the database gave, no wall times (design.md section 8, number 9)."""
