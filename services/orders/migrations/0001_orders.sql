-- Ids compare byte by byte (COLLATE "C"), so that rows are locked in the order in which Python sorts their keys.

CREATE TABLE orders (
    order_id          text COLLATE "C" PRIMARY KEY,
    status            text CHECK (status IN ('accepted', 'rejected')), -- NULL: a stub, only ever seen by the transaction that fills it
    customer_id       text,
    customer_name     text,
    customer_email    text,
    customer_language text,
    customer_zone     text,
    currency          text,
    placed_at         timestamptz,
    queued_at         timestamptz,                                     -- broker's time of the order's own record: its place in every queue
    content           bytea,                                           -- hash of the OrderPlaced, to know it again under another message id
    open_lines        integer NOT NULL DEFAULT 0 CHECK (open_lines >= 0),
    completed_at      timestamptz,
    errors            jsonb,                                           -- why it was rejected
    CHECK (status IS DISTINCT FROM 'accepted' OR num_nulls(
        customer_id, customer_name, customer_email, customer_language, customer_zone, currency, placed_at, queued_at, content) = 0),
    CHECK (status IS DISTINCT FROM 'rejected' OR errors IS NOT NULL)
) WITH (fillfactor = 60);
-- Free room in each page lets a stub be filled, and open lines be counted down, mostly without touching the index (HOT updates).

-- A line is guarded by the lock of its order's row. No foreign key: the lock already proves that the order exists, and the audit checks it.
CREATE TABLE line (
    order_id        text COLLATE "C" NOT NULL,
    line            integer NOT NULL,
    sku             text COLLATE "C" NOT NULL,
    unit_price      numeric(18, 4) NOT NULL,
    ordered         integer NOT NULL CHECK (ordered > 0),
    cancelled       integer NOT NULL CHECK (cancelled >= 0),
    shipped         integer NOT NULL CHECK (shipped >= 0),
    served          integer NOT NULL CHECK (served >= 0),              -- units ever set aside and not taken back, as inventory told
    served_version  bigint NOT NULL,
    answered        boolean NOT NULL,                                  -- inventory has answered: the rest is backordered, no longer pending
    ship_by         date,                                              -- the promise for what still waits; NULL = no date
    promise_version bigint NOT NULL,
    demand_version  bigint NOT NULL,                                   -- under which `wanted` last changed; only answers to it count
    version         bigint NOT NULL,                                   -- rises with every event of the line
    PRIMARY KEY (order_id, line),
    CHECK (shipped + cancelled <= ordered),
    CHECK (served <= ordered - cancelled)
) WITH (fillfactor = 60);

-- The five amounts as SQL, for the audit and for operators: a second implementation of domain.Line.
CREATE VIEW line_amounts AS
SELECT order_id, line, sku, ordered,
       CASE WHEN answered THEN 0 ELSE open - allocated END AS pending,
       allocated,
       CASE WHEN answered THEN open - allocated ELSE 0 END AS backordered,
       shipped, cancelled
FROM line CROSS JOIN LATERAL (
    SELECT ordered - cancelled - shipped AS open, greatest(0, least(served, ordered - cancelled) - shipped) AS allocated
) AS derived;

CREATE TABLE timeline (
    id       bigint GENERATED ALWAYS AS IDENTITY,
    order_id text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,
    type     text NOT NULL,
    data     json NOT NULL,                                            -- without the customer, who stands once in orders
    cause    text NOT NULL,
    PRIMARY KEY (order_id, id)
);

CREATE TABLE cancellation (
    order_id text COLLATE "C" NOT NULL,
    request  text COLLATE "C" NOT NULL,
    content  bytea NOT NULL,
    PRIMARY KEY (order_id, request)
);

CREATE TABLE shipment (
    order_id text COLLATE "C" NOT NULL,
    shipment text COLLATE "C" NOT NULL,
    content  bytea NOT NULL,
    PRIMARY KEY (order_id, shipment)
);
