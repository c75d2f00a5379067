-- An order: whom to write (personal data: only here and in mail), and what waits to be told. Its row is the lock of all that is
-- told of the order. `waiting` is an array of domain.Notice, each an array of its fields: one row changes, however many lines.
CREATE TABLE correspondence (
    order_id text PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    language text NOT NULL,
    time_zone text NOT NULL,
    waiting json NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50);

-- No foreign keys: each would ask, and lock, a row per row written; the audit checks what they would.
-- Mails as sent. `number` is the journal number they were written under: the mails of an order leave in this order.
-- `mail_id` is their name to the outside; `lines` is what the shop is told of them, an array of NoticedLine.
CREATE TABLE mail (
    order_id text NOT NULL,
    number bigint NOT NULL,
    mail_id uuid NOT NULL,
    recipient text NOT NULL,
    subject text NOT NULL,
    body text NOT NULL,
    message_id text NOT NULL,
    created_at timestamptz NOT NULL,
    lines json NOT NULL,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sent', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(), -- wall time, unlike the other two
    sent_at timestamptz,
    last_error text NOT NULL DEFAULT '',
    PRIMARY KEY (order_id, number),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX mail_queued ON mail (number, order_id) WHERE status = 'queued';
CREATE INDEX mail_oldest ON mail (order_id, number) WHERE status = 'queued';

-- What was told, by the mail (order_id, number): one row per thing and line, written with its mail and never changed.
-- `version` is the promise's for promises, else the line's; `total` tells facts of one line version apart (domain.Notice).
CREATE TABLE notice (
    order_id text NOT NULL,
    number bigint NOT NULL,
    line int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('backordered', 'date_changed', 'allocated', 'shipped', 'cancelled')),
    version bigint NOT NULL,
    total int NOT NULL,
    sku text NOT NULL,
    units int NOT NULL,
    ordered int NOT NULL,
    since timestamptz NOT NULL,
    at timestamptz NOT NULL,
    carrier text NOT NULL,
    tracking text NOT NULL,
    reason text,
    ship_by date,
    was date
);
-- One notice per line and promise version, whatever it calls itself; and one per fact.
CREATE UNIQUE INDEX notice_told ON notice (order_id, line, (CASE kind WHEN 'date_changed' THEN 'backordered' ELSE kind END), version, total);

-- What waits, and all there is, for queries. `number` is null while a notice waits.
CREATE VIEW waiting_notice AS
SELECT order_id, (n ->> 0)::int AS line, n ->> 1 AS kind, (n ->> 2)::bigint AS version, (n ->> 3)::int AS total, n ->> 4 AS sku,
    (n ->> 5)::int AS units, (n ->> 6)::int AS ordered, (n ->> 7)::timestamptz AS since, (n ->> 8)::timestamptz AS due_at,
    (n ->> 9)::timestamptz AS at, n ->> 10 AS carrier, n ->> 11 AS tracking, n ->> 12 AS reason, (n ->> 13)::date AS ship_by,
    (n ->> 14)::date AS was
FROM correspondence, json_array_elements(waiting) AS n;

CREATE VIEW every_notice AS
SELECT order_id, NULL::bigint AS number, line, kind, version, total, since, due_at, ship_by FROM waiting_notice
UNION ALL
SELECT order_id, number, line, kind, version, total, since, NULL, ship_by FROM notice;
