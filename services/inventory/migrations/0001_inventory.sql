-- Text keys are compared byte by byte (COLLATE "C"), so that the database and the code agree on the order of locks and of the queue.

CREATE TABLE sku (
    sku            text COLLATE "C" PRIMARY KEY,
    description    text    NOT NULL DEFAULT '',
    backorder      text    CHECK (backorder IN ('allow', 'deny')),      -- NULL: the catalogue has not defined it
    counted        boolean NOT NULL DEFAULT false,
    on_hand        bigint  NOT NULL DEFAULT 0 CHECK (on_hand >= 0),
    allocated      bigint  NOT NULL DEFAULT 0 CHECK (allocated BETWEEN 0 AND on_hand),
    waiting        bigint  NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    received_total bigint  NOT NULL DEFAULT 0,
    needed_by      timestamptz,                                         -- when the first in the queue ordered
    next_date      date,                                                -- as last told to the shop
    version        bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);                                               -- room for HOT updates of a row that every batch changes

CREATE TABLE demand (
    order_id        text COLLATE "C" NOT NULL,
    line            integer     NOT NULL,
    sku             text COLLATE "C" NOT NULL,
    wanted          integer     NOT NULL,
    shipped         integer     NOT NULL,
    served          integer     NOT NULL,
    refused         integer     NOT NULL,
    queue_class     integer     NOT NULL,
    queued_at       timestamptz NOT NULL,
    ordered_at      timestamptz NOT NULL,
    demand_version  bigint      NOT NULL,                               -- under which `wanted` last changed: what is answered
    version         bigint      NOT NULL,                               -- of the latest claim
    ship_by         date,
    promise_version integer     NOT NULL,
    PRIMARY KEY (order_id, line)
) WITH (fillfactor = 70);                                               -- that units shipped is a HOT update
CREATE INDEX demand_queue ON demand (sku, queue_class, queued_at, order_id, line) WHERE wanted > served + refused;

CREATE TABLE supply (
    purchase_order text COLLATE "C" NOT NULL,
    line           integer NOT NULL,
    sku            text COLLATE "C" NOT NULL,
    committed      bigint  NOT NULL,
    open           bigint  NOT NULL,
    expected_on    date,                                                -- a day in the warehouse's zone
    version        bigint  NOT NULL,
    PRIMARY KEY (purchase_order, line)
);
CREATE INDEX supply_open ON supply (sku) WHERE open > 0;                -- what has come is history and costs nothing

-- Signed changes of on_hand, allocated and waiting. A SKU's entries are written under its lock, so their ids follow its commits.
CREATE TABLE ledger (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku            text COLLATE "C" NOT NULL,
    kind           text        NOT NULL CHECK (kind IN (
        'counted', 'received', 'backordered', 'allocated', 'cancelled', 'withdrawn', 'shipped', 'restored', 'corrected')),
    on_hand        bigint      NOT NULL,
    allocated      bigint      NOT NULL,
    waiting        bigint      NOT NULL,
    order_id       text COLLATE "C",
    receipt        text COLLATE "C",
    purchase_order text COLLATE "C",
    line           integer,                                             -- of the order, or of the purchase order
    undoes         text,
    cause          text        NOT NULL,
    number         bigint      NOT NULL,                                -- of the transaction, in the journal
    at             timestamptz NOT NULL
);
CREATE UNIQUE INDEX ledger_received ON ledger (receipt, purchase_order, line) WHERE kind = 'received';
