"""Every metric of a process, in one place; served at `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("backorder_records_total", "Records taken from the log, new or not")
ITEMS = Counter("backorder_items_total", "New messages applied, refused or parked")
ASSIGNMENTS = Counter(
    "backorder_assignments_total", "Times that this member was given partitions: each is a rebalance that it took part in"
)
FAILED_BATCHES = Counter("backorder_failed_batches_total", "Batches that failed and were read again")
TRANSACTION_SECONDS = Histogram("backorder_transaction_seconds", "Seconds per batch transaction")
PUBLISHED = Gauge("backorder_published_records", "Records published by this process' relay")
OUTBOX_ROWS = Gauge("backorder_outbox_rows", "Records waiting for publication")
LEADER = Gauge("backorder_leader", "1 while this instance relays, fires timers and runs the background loops")
DEAD_LETTERS = Gauge("backorder_dead_letters", "Dead letters by state", ["state"])
INVARIANTS_CHECKED = Counter(
    "backorder_invariants_checked_total", "Transactions and aggregates of which an invariant was found to be true", ["invariant"]
)
INVARIANTS_BROKEN = Gauge(
    "backorder_invariants_broken", "Quarantined aggregates and parked messages that break an invariant", ["invariant"]
)
QUARANTINED = Gauge("backorder_quarantined", "Aggregates whose messages wait for a repair")
