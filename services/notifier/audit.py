"""The notifier's invariants (design.md section 8) as SQL: each check answers the rows that break it."""

CHECKS: dict[str, str] = {
    "one_notice_per_promise_version": """
        SELECT order_id, line, version, count(*) FROM notice WHERE kind IN ('backordered', 'date_changed')
        GROUP BY order_id, line, version HAVING count(*) > 1""",
    "one_notice_per_fact": """
        SELECT order_id, line, kind, version, total, count(*) FROM notice
        GROUP BY order_id, line, kind, version, total HAVING count(*) > 1""",
    # With no timer due once settled, this says that every due notice was gathered or superseded.
    "waiting_notices_have_their_timer": """
        SELECT n.order_id, min(n.due_at) AS due_at, t.due AS timer
        FROM notice n LEFT JOIN runtime.timer t ON t.kind = 'DigestDue' AND t.key = n.order_id
        WHERE n.mail_id IS NULL AND NOT n.superseded
        GROUP BY n.order_id, t.due HAVING t.due IS NULL OR t.due > min(n.due_at)""",
    "gathering_took_all_that_was_due": """
        SELECT DISTINCT n.order_id, n.line, n.kind, n.version, n.due_at, m.created_at AS mail_written_at
        FROM notice n JOIN mail m USING (order_id)
        WHERE n.mail_id IS NULL AND NOT n.superseded AND n.due_at <= m.created_at AND n.since <= m.created_at""",
    "superseded_notices_are_not_told": "SELECT order_id, line, kind, version FROM notice WHERE superseded AND mail_id IS NOT NULL",
    "mails_have_notices": """
        SELECT order_id, mail_id FROM mail WHERE NOT EXISTS (SELECT FROM notice WHERE notice.mail_id = mail.mail_id)""",
    "notices_and_mails_share_their_order": """
        SELECT n.order_id, n.line, n.kind, n.version, m.order_id AS mail_order
        FROM notice n JOIN mail m USING (mail_id) WHERE n.order_id <> m.order_id""",
    "promises_are_told_in_order": """
        SELECT order_id, line, version, number FROM (
            SELECT n.order_id, n.line, n.version, m.number,
                lag(n.version) OVER (PARTITION BY n.order_id, n.line ORDER BY m.number) AS told_before
            FROM notice n JOIN mail m USING (mail_id) WHERE n.kind IN ('backordered', 'date_changed')) told
        WHERE version <= told_before""",
    "mails_sent": "SELECT order_id, mail_id, attempts, next_attempt_at, last_error FROM mail WHERE status = 'queued'",
}

COUNTS: dict[str, str] = {
    "orders": "SELECT count(*) FROM order_contact",
    "notices": "SELECT count(*) FROM notice",
    "notices_superseded": "SELECT count(*) FROM notice WHERE superseded",
    "mails": "SELECT count(*) FROM mail",
    "mails_sent": "SELECT count(*) FROM mail WHERE status = 'sent'",
    "mails_failed": "SELECT count(*) FROM mail WHERE status = 'failed'",
}

STATE: dict[str, str] = {
    "order_contact": "SELECT * FROM order_contact ORDER BY order_id",
    "mail": """
        SELECT order_id, number, mail_id, recipient, subject, body, message_id, created_at, status, attempts, sent_at, last_error
        FROM mail ORDER BY order_id, number""",
    "notice": "SELECT * FROM notice ORDER BY order_id, line, kind, version, total",
}
"""Table → its rows by what they mean, in an order of their own: no ids that the database gave, no wall times (design.md section 8, number 9)."""
