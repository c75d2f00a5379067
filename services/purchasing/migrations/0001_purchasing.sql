-- purchasing's own tables. Their rows are the classes of domain.py, with the same names.

CREATE TABLE supplier (
    supplier text PRIMARY KEY,
    next_number int NOT NULL DEFAULT 1
);

-- What is short of a SKU, as inventory said last, and what has been undertaken to get it.
CREATE TABLE sku (
    sku text PRIMARY KEY,
    waiting bigint NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    needed_by timestamptz,
    received_total bigint NOT NULL DEFAULT 0 CHECK (received_total >= 0),
    shortage_version bigint NOT NULL DEFAULT -1,
    committed bigint NOT NULL DEFAULT 0 CHECK (committed >= 0),
    attempts int NOT NULL DEFAULT 0,
    declined_by text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);

CREATE TABLE offer (
    supplier text NOT NULL REFERENCES supplier,
    sku text NOT NULL REFERENCES sku,
    price numeric(18, 4) NOT NULL CHECK (price >= 0),
    currency text NOT NULL,
    pack int NOT NULL CHECK (pack > 0),
    minimum int NOT NULL CHECK (minimum > 0),
    lead_days int NOT NULL CHECK (lead_days >= 0),
    PRIMARY KEY (supplier, sku)
);
CREATE INDEX ON offer (sku);

CREATE TABLE purchase_order (
    purchase_order text PRIMARY KEY,
    supplier text NOT NULL REFERENCES supplier,
    currency text NOT NULL,
    window_due timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('planned', 'issued')),
    issued_at timestamptz,
    last_line int NOT NULL,
    CHECK ((status = 'issued') = (issued_at IS NOT NULL))
);
CREATE INDEX ON purchase_order (supplier) WHERE status = 'planned';
CREATE INDEX ON purchase_order (window_due DESC, purchase_order);

CREATE TABLE purchase_line (
    purchase_order text NOT NULL REFERENCES purchase_order,
    line int NOT NULL,
    sku text NOT NULL REFERENCES sku,
    shortage_version bigint NOT NULL,
    attempt int NOT NULL,
    ordered int NOT NULL CHECK (ordered >= 0),
    declined int NOT NULL CHECK (declined >= 0),
    closed_short int NOT NULL CHECK (closed_short >= 0),
    received int NOT NULL CHECK (received >= 0),
    unit_price numeric(18, 4) NOT NULL,
    lead_days int NOT NULL,
    expected_on date,
    PRIMARY KEY (purchase_order, line),
    UNIQUE (purchase_order, sku),
    -- Nothing is bought twice for one need.
    UNIQUE (sku, shortage_version, attempt),
    CHECK (ordered >= declined + closed_short + received)
) WITH (fillfactor = 70);
CREATE INDEX purchase_line_open ON purchase_line (sku) WHERE ordered > declined + closed_short + received;

CREATE TABLE receipt (
    receipt text PRIMARY KEY,
    content bytea NOT NULL,
    purchase_order text NOT NULL REFERENCES purchase_order,
    received_at timestamptz NOT NULL,
    lines jsonb NOT NULL
);
CREATE INDEX ON receipt (purchase_order);

CREATE TABLE acknowledgement (
    supplier text NOT NULL,
    acknowledgement text NOT NULL,
    purchase_order text NOT NULL REFERENCES purchase_order,
    acknowledged_at timestamptz NOT NULL,
    PRIMARY KEY (supplier, acknowledgement)
);

-- A need that no supplier covers, or that is too large to plan at once: an operator's.
CREATE TABLE exception (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text NOT NULL REFERENCES sku,
    reason text NOT NULL CHECK (reason IN ('no_offer', 'every_supplier_declined', 'too_much_at_once')),
    quantity bigint NOT NULL CHECK (quantity > 0),
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE UNIQUE INDEX exception_open ON exception (sku) WHERE closed_at IS NULL;
