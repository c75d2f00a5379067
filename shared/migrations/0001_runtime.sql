-- The runtime's own tables, the same in every service's database. See docs/how-it-works.md.
CREATE SCHEMA runtime;

-- Facts fixed for the life of a system (the clock's source, the number of partitions): a process that disagrees does not start.
CREATE TABLE runtime.fixed (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- Where the database stands in each partition. Never drops a record: it only shows when the database is behind the log.
CREATE TABLE runtime.partition (
    topic text NOT NULL,
    partition int NOT NULL,
    next bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- The only thing that ever drops a record: ids already applied. Ours are UUIDv7, so old ones are a range.
CREATE TABLE runtime.inbox (
    id uuid PRIMARY KEY
);

-- Ids from outside are arbitrary text, unique per source; the hash tells a repeat from an id used for something else.
CREATE TABLE runtime.inbox_external (
    source text NOT NULL,
    id text NOT NULL,
    hash bytea NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, id)
);
CREATE INDEX ON runtime.inbox_external (seen_at);

-- One row per record to publish; inserted with the state change, deleted after the broker's acknowledgement.
CREATE TABLE runtime.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    partition int NOT NULL,
    key bytea,
    id uuid NOT NULL,
    type text NOT NULL,
    time timestamptz NOT NULL,
    causation text NOT NULL,
    actor text NOT NULL,
    value bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Numbers the transactions in the order of their locks; the number is the version of every level that they send.
CREATE SEQUENCE runtime.journal_number;
CREATE TABLE runtime.journal (
    number bigint PRIMARY KEY,
    business timestamptz NOT NULL,
    wall timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied jsonb NOT NULL, -- in order: [topic, partition, offset, index, last offset, last index], or what the service told itself
    parked jsonb NOT NULL,  -- timers that left the table without being applied: [kind, key, due]
    read_back boolean NOT NULL DEFAULT false -- applied while a restored database learnt what had been told
);

-- Due things, at business times; `kind` is the name of the timer's class.
CREATE TABLE runtime.timer (
    kind text NOT NULL,
    key text NOT NULL,
    due timestamptz NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX ON runtime.timer (due, kind, key);

-- Everything that could not be applied, with the reason. `parked` rows hold back later messages of their aggregate.
CREATE TABLE runtime.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('refused', 'parked', 'replayed', 'discarded', 'superseded')),
    reason text NOT NULL,
    detail text NOT NULL,
    aggregate text,
    waits_for text,               -- the quarantined aggregate whose repair it waits for
    topic text NOT NULL,
    partition int NOT NULL,
    "offset" bigint NOT NULL,
    index int NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    message_id text NOT NULL,
    actor text NOT NULL,
    time timestamptz NOT NULL,
    appended timestamptz NOT NULL,
    body bytea,
    headers jsonb NOT NULL DEFAULT '[]',
    at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE INDEX ON runtime.dead_letter (aggregate, id) WHERE state = 'parked';
CREATE INDEX ON runtime.dead_letter (state, id);

-- An operator's wish to apply or to drop a dead letter; the service does it in a transaction like any other.
CREATE TABLE runtime.dead_letter_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter bigint NOT NULL REFERENCES runtime.dead_letter,
    action text NOT NULL CHECK (action IN ('replay', 'discard')),
    actor text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    result text
);
CREATE INDEX ON runtime.dead_letter_request (id) WHERE done_at IS NULL;

-- What was found broken, and until when: messages about it wait. Nobody but a repair releases it.
CREATE TABLE runtime.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aggregate text NOT NULL,
    invariant text NOT NULL,
    detail text NOT NULL,
    since timestamptz NOT NULL,
    right_until bigint,           -- in the journal: it was still right after this transaction; NULL: nobody had looked
    number bigint,                -- the first transaction that touched it since then, and the message that it applied;
    message text,                 -- NULL: none did, so it was changed from outside (or the service cannot tell)
    released_at timestamptz
);
CREATE UNIQUE INDEX ON runtime.quarantine (aggregate, invariant) WHERE released_at IS NULL;

-- An operator's wish to repair an aggregate: who, when, why, and what came of it. Kept for good.
CREATE TABLE runtime.repair (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aggregate text NOT NULL,
    dry_run boolean NOT NULL,     -- only say what would be done
    actor text NOT NULL,
    reason text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    repaired boolean,
    result text
);
CREATE INDEX ON runtime.repair (id) WHERE done_at IS NULL;

-- How far the round over all aggregates of a kind has come, and the journal's number when it and the one before it began.
CREATE TABLE runtime.round (
    kind text PRIMARY KEY,
    key text NOT NULL,
    began bigint NOT NULL,
    before bigint
);
