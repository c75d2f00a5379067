"""The notifier's invariants (design.md section 8) as SQL: each check answers the rows that break it."""

from shared.service import Watched

CHECKS: dict[str, str] = {
    "one_notice_per_promise_version": """
        SELECT order_id, line, version, count(*) FROM every_notice WHERE kind IN ('backordered', 'date_changed')
        GROUP BY order_id, line, version HAVING count(*) > 1""",
    "one_notice_per_fact": """
        SELECT order_id, line, kind, version, total, count(*) FROM every_notice
        GROUP BY order_id, line, kind, version, total HAVING count(*) > 1""",
    "one_word_of_a_level_waits": """
        SELECT order_id, line, kind = 'allocated' AS allocated, count(*) FROM waiting_notice
        WHERE kind IN ('backordered', 'date_changed', 'allocated') GROUP BY order_id, line, kind = 'allocated' HAVING count(*) > 1""",
    "what_waits_is_newer_than_what_was_told": """
        SELECT w.order_id, w.line, w.kind, w.version, w.total, n.version AS told_version, n.total AS told_total
        FROM waiting_notice w JOIN notice n USING (order_id, line)
        WHERE replace(w.kind, 'date_changed', 'backordered') = replace(n.kind, 'date_changed', 'backordered')
            AND (w.version, w.total) <= (n.version, n.total)""",
    # A timer is due in its table, or parked. With none due once settled, this says that every due notice was gathered.
    "waiting_notices_have_their_timer": """
        SELECT n.order_id, min(n.due_at) AS due_at, t.due AS timer
        FROM waiting_notice n LEFT JOIN runtime.timer t ON t.kind = 'DigestDue' AND t.key = n.order_id
        WHERE NOT EXISTS (SELECT FROM runtime.dead_letter WHERE state = 'parked' AND aggregate = 'order:' || order_id)
        GROUP BY n.order_id, t.due HAVING t.due IS NULL OR t.due > min(n.due_at)""",
    # When a mail was written whose text was lost with a database, nobody knows.
    "gathering_took_all_that_was_due": """
        SELECT DISTINCT n.order_id, n.line, n.kind, n.version, n.due_at, m.created_at AS mail_written_at
        FROM waiting_notice n JOIN mail m USING (order_id)
        WHERE n.due_at <= m.created_at AND n.since <= m.created_at AND m.body <> ''""",
    "mails_have_their_notices": """
        SELECT order_id, number, json_array_length(lines) AS told, coalesce(notices, 0) AS count
        FROM mail LEFT JOIN (SELECT order_id, number, count(*) AS notices FROM notice GROUP BY 1, 2) AS counted USING (order_id, number)
        WHERE coalesce(notices, 0) <> greatest(json_array_length(lines), 1)""",
    "notices_have_their_mail": """
        SELECT order_id, number, line, kind, version FROM notice
        WHERE NOT EXISTS (SELECT FROM mail WHERE (mail.order_id, mail.number) = (notice.order_id, notice.number))""",
    "promises_are_told_in_order": """
        SELECT order_id, line, version, number FROM (
            SELECT order_id, line, version, number, lag(version) OVER (PARTITION BY order_id, line ORDER BY number) AS told_before
            FROM notice WHERE kind IN ('backordered', 'date_changed')) told
        WHERE version <= told_before""",
}

WATCHED = (Watched("order", dict.fromkeys(("correspondence", "waiting_notice", "every_notice", "notice", "mail"), "order_id"), CHECKS),)
"""What is looked at while the service works: a broken order is quarantined."""

COUNTS: dict[str, str] = {
    "orders": "SELECT count(*) FROM correspondence",
    "notices_told": "SELECT count(*) FROM notice",
    "notices_waiting": "SELECT count(*) FROM waiting_notice",
    "mails": "SELECT count(*) FROM mail",
    "mails_sent": "SELECT count(*) FROM mail WHERE status = 'sent'",
    "mails_failed": "SELECT count(*) FROM mail WHERE status = 'failed'",
}

STATE: dict[str, str] = {
    "correspondence": "SELECT * FROM correspondence ORDER BY order_id",
    "mail": """
        SELECT order_id, number, mail_id, recipient, subject, body, message_id, created_at, lines, status, attempts, sent_at, last_error
        FROM mail ORDER BY order_id, number""",
    "notice": "SELECT * FROM notice ORDER BY order_id, line, kind, version, total",
}
"""Table → its rows by what they mean, in an order of their own: no ids that the database gave, no wall times (design.md section 8, number 9)."""
