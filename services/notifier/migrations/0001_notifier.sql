-- Whom to write about an order (personal data: only here and in mail). Its row is the lock of the order's notices.
CREATE TABLE order_contact (
    order_id text PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    language text NOT NULL,
    time_zone text NOT NULL
);

-- No foreign keys: each would ask, and lock, a row per row written; the audit checks what they would.
-- Mails as sent. `number` is the journal number they were written under: the mails of an order leave in this order.
CREATE TABLE mail (
    mail_id uuid PRIMARY KEY,
    number bigint NOT NULL,
    order_id text NOT NULL,
    recipient text NOT NULL,
    subject text NOT NULL,
    body text NOT NULL,
    message_id text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'sent', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(), -- wall time, unlike the other two
    sent_at timestamptz,
    last_error text NOT NULL DEFAULT '',
    UNIQUE (order_id, number),
    CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX mail_queued ON mail (number, order_id) WHERE status = 'queued';
CREATE INDEX mail_queued_order ON mail (order_id, number) WHERE status = 'queued';

-- One thing to tell about one line. It waits until it is gathered into a mail, or is superseded by newer news.
-- `version` is the promise's for promises, else the line's; `total` tells facts of one line version apart (domain.Key).
CREATE TABLE notice (
    order_id text NOT NULL,
    line int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('backordered', 'date_changed', 'allocated', 'shipped', 'cancelled')),
    version bigint NOT NULL,
    total int NOT NULL,
    facts jsonb NOT NULL,
    since timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    superseded boolean NOT NULL,
    mail_id uuid,
    PRIMARY KEY (order_id, line, kind, version, total),
    CHECK (NOT superseded OR mail_id IS NULL)
);
-- One notice per line and promise version, whatever it calls itself.
CREATE UNIQUE INDEX notice_promise ON notice (order_id, line, version) WHERE kind IN ('backordered', 'date_changed');
CREATE INDEX notice_waiting ON notice (order_id) WHERE mail_id IS NULL AND NOT superseded;
CREATE INDEX notice_mail ON notice (mail_id) WHERE mail_id IS NOT NULL;
