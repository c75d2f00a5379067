"""How an event gets from one service's transaction to another's, as small steps over an immutable world.

The steps are those of the code: a transaction that commits state and outbox (`shared.transaction`, `shared.outbox`), relays
that read, publish per partition and delete (`shared.relay`), a topic, and workers that poll, open a transaction under the
locks of their partitions, commit and acknowledge (`shared.consumer`, `shared.inbox`, `shared.partitions`). Between any two
steps anything may crash, partitions may change hands while their former owner goes on, two relays may lead, and what was
sent may arrive late. Nothing here knows of the others' state but through outbox, topic and database.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

PARTITION = {"a": 0, "b": 1, "c": 1}
Step = tuple[str, "World"]
T = TypeVar("T")


class Protocol(NamedTuple):
    """What keeps effects to exactly one; a test takes one away."""

    inbox: bool = True
    outbox_in_transaction: bool = True
    relay_in_order: bool = True
    acknowledged_after_commit: bool = True
    partition_rows: bool = True


class Event(NamedTuple):
    """Something that a service tells, about a key whose story has an order; the id is of this attempt to tell it."""

    id: int
    key: str


class Relay(NamedTuple):
    """What a relay has read, which partitions it has still to send, and what the broker has acknowledged."""

    rows: tuple[Event, ...] = ()
    to_send: tuple[int, ...] = ()
    acknowledged: frozenset[int] = frozenset()


class Span(NamedTuple):
    """Offsets of one partition in a batch, the end exclusive."""

    partition: int
    start: int
    end: int


class Worker(NamedTuple):
    """A consumer's batch, how far it is, and what its open transaction is going to apply."""

    batch: tuple[Span, ...] = ()
    stage: str = "idle"
    fresh: tuple[Event, ...] = ()


class Budget(NamedTuple):
    """How much may still go wrong."""

    crashes: int = 0
    rebalances: int = 0
    refusals: int = 0
    late: int = 0
    second_leaders: int = 0
    restores: int = 0


class Database(NamedTuple):
    """The downstream service's truth."""

    applied: tuple[Event, ...] = ()
    inbox: frozenset[int] = frozenset()
    next: tuple[int, ...] = (0, 0)


class World(NamedTuple):
    """Everything there is."""

    to_tell: tuple[str, ...]
    budget: Budget
    workers: tuple[Worker, ...]
    ids: int = 0
    uncommitted: tuple[Event, ...] = ()
    told: tuple[Event, ...] = ()
    outbox: tuple[Event, ...] = ()
    relays: tuple[Relay, ...] = (Relay(), Relay())
    late: tuple[tuple[int, tuple[Event, ...]], ...] = ()
    log: tuple[tuple[Event, ...], ...] = ((), ())
    owner: tuple[int, ...] = (0, 0)
    position: tuple[int, ...] = (0, 0)
    bookmark: tuple[int, ...] = (0, 0)
    database: Database = Database()
    backup: Database | None = None


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    """The tuple with another item at this index."""
    return (*items[:index], item, *items[index + 1 :])


def steps(world: World, protocol: Protocol) -> Iterator[Step]:
    """What happens by itself: whatever is enabled is done in the end, in any order."""
    yield from _telling(world, protocol)
    for number, relay in enumerate(world.relays):
        yield from _relaying(world, protocol, number, relay)
    for number, (partition, events) in enumerate(world.late):
        arrived = world._replace(late=world.late[:number] + world.late[number + 1 :])
        yield f"late events arrive in {partition}", _append(arrived, partition, events)
    for number, worker in enumerate(world.workers):
        yield from _working(world, protocol, number, worker)


def faults(world: World, protocol: Protocol) -> Iterator[Step]:
    """What may befall the world, as long as the budget lasts."""
    left = world.budget
    if left.crashes:
        yield from _crashes(world._replace(budget=left._replace(crashes=left.crashes - 1)), protocol)
    if left.rebalances:
        spent = world._replace(budget=left._replace(rebalances=left.rebalances - 1))
        for partition, owner in enumerate(world.owner):
            for other in range(len(world.workers)):
                if other != owner:
                    yield f"{partition} goes to worker {other}", _reassigned(spent, protocol, put(world.owner, partition, other))
    if left.restores:
        if world.backup is None:
            yield "backup", world._replace(backup=world.database)
        elif world.backup != world.database:
            spent = world._replace(budget=left._replace(restores=left.restores - 1), database=world.backup)
            restored = spent._replace(workers=tuple(Worker() for _ in world.workers))
            yield "restored from the backup", _reassigned(restored, protocol, world.owner)


def _crashes(world: World, protocol: Protocol) -> Iterator[Step]:
    """Whoever has something in memory loses it."""
    if world.uncommitted:
        yield "upstream crashes", world._replace(uncommitted=())
    for number, relay in enumerate(world.relays):
        if relay.rows:
            yield f"relay {number} crashes", world._replace(relays=put(world.relays, number, Relay()))
    for number, worker in enumerate(world.workers):
        if worker.batch:
            idle = world._replace(workers=put(world.workers, number, Worker()))
            yield f"worker {number} crashes", _reassigned(idle, protocol, world.owner)


def _telling(world: World, protocol: Protocol) -> Iterator[Step]:
    """The upstream service's transactions: state and outbox together."""
    if world.uncommitted:  # the outbox row is there already, in a transaction of its own
        committed = world._replace(told=world.told + world.uncommitted, to_tell=world.to_tell[1:], uncommitted=())
        yield "upstream commits its state", committed
    elif world.to_tell:
        event = Event(world.ids, world.to_tell[0])
        written = world._replace(ids=world.ids + 1, outbox=(*world.outbox, event))
        if protocol.outbox_in_transaction:
            yield "upstream commits", written._replace(told=(*world.told, event), to_tell=world.to_tell[1:])
        else:
            yield "upstream writes its outbox", written._replace(uncommitted=(event,))


def _relaying(world: World, protocol: Protocol, number: int, relay: Relay) -> Iterator[Step]:
    """One relay: read the oldest rows, send each partition's in order, delete what was acknowledged."""

    def become(relay: Relay, world: World = world) -> World:
        return world._replace(relays=put(world.relays, number, relay))

    left = world.budget
    if not relay.rows:
        if world.outbox and (number == 0 or left.second_leaders):
            partitions = tuple(sorted({PARTITION[event.key] for event in world.outbox}))
            spent = world._replace(budget=left._replace(second_leaders=left.second_leaders - 1)) if number else world
            yield f"relay {number} reads", become(Relay(world.outbox, partitions), spent)
    elif not relay.to_send:
        kept = tuple(event for event in world.outbox if event.id not in relay.acknowledged)
        yield f"relay {number} deletes", become(Relay(), world._replace(outbox=kept))
    for partition in relay.to_send:
        rows = tuple(event for event in relay.rows if PARTITION[event.key] == partition)
        rest = relay._replace(to_send=tuple(other for other in relay.to_send if other != partition))
        sent = rest._replace(acknowledged=relay.acknowledged | {event.id for event in rows})
        yield f"relay {number} publishes {partition}", become(sent, _append(world, partition, rows))
        if left.late:
            spent = world._replace(budget=left._replace(late=left.late - 1), late=(*world.late, (partition, rows)))
            yield f"relay {number} hears nothing from {partition} and begins anew", become(Relay(), spent)
        if left.refusals:
            spent = world._replace(budget=left._replace(refusals=left.refusals - 1))
            if protocol.relay_in_order:
                yield f"{partition} refuses relay {number}", become(rest, spent)
            else:  # it goes on with the next row
                for refused in rows:
                    accepted = tuple(event for event in rows if event is not refused)
                    passed = rest._replace(acknowledged=relay.acknowledged | {event.id for event in accepted})
                    yield f"{partition} refuses {refused.id} of relay {number}", become(passed, _append(spent, partition, accepted))


def _working(world: World, protocol: Protocol, number: int, worker: Worker) -> Iterator[Step]:
    """One consumer: poll, lock and read, commit, acknowledge."""

    def become(worker: Worker, world: World = world) -> World:
        return world._replace(workers=put(world.workers, number, worker))

    def acknowledged() -> World:
        """What the client commits is the position of all that it owns, whatever its batch was."""
        bookmark = tuple(
            position if owner == number else mark for position, owner, mark in zip(world.position, world.owner, world.bookmark, strict=True)
        )
        return world._replace(bookmark=bookmark)

    match worker.stage:
        case "idle":
            mine = [number == owner for owner in world.owner]
            batch = tuple(
                Span(partition, world.position[partition], len(log))
                for partition, log in enumerate(world.log)
                if mine[partition] and world.position[partition] < len(log)
            )
            if batch:
                ends = tuple(len(log) if mine[partition] else world.position[partition] for partition, log in enumerate(world.log))
                yield f"worker {number} polls", become(Worker(batch, "polled"), world._replace(position=ends))
        case "polled" if not protocol.acknowledged_after_commit:
            yield f"worker {number} acknowledges", become(worker._replace(stage="acknowledged"), acknowledged())
        case "polled" | "acknowledged":
            yield from _opening(world, protocol, number, worker)
        case "open":
            done = Worker(worker.batch, "committed") if protocol.acknowledged_after_commit else Worker()
            yield f"worker {number} commits", become(done, world._replace(database=_committed(world.database, worker)))
        case "committed":
            yield f"worker {number} acknowledges", become(Worker(), acknowledged())


def _opening(world: World, protocol: Protocol, number: int, worker: Worker) -> Iterator[Step]:
    """The transaction begins: lock the partition rows (or wait), see whether the database is behind, keep what is new."""
    locked = {span.partition for other in world.workers if other.stage == "open" for span in other.batch}
    if locked & {span.partition for span in worker.batch}:
        return
    position, batch = world.position, []
    for span in worker.batch:
        if protocol.partition_rows and span.start > world.database.next[span.partition]:
            if world.owner[span.partition] == number:
                position = put(position, span.partition, world.database.next[span.partition])
        else:
            batch.append(span)
    seen = set(world.database.inbox) if protocol.inbox else set()
    fresh = []
    for span in batch:
        for event in world.log[span.partition][span.start : span.end]:
            if event.id not in seen or not protocol.inbox:
                fresh.append(event)
                seen.add(event.id)
    begun = Worker(tuple(batch), "open", tuple(fresh))
    yield f"worker {number} begins", world._replace(position=position, workers=put(world.workers, number, begun))


def _committed(database: Database, worker: Worker) -> Database:
    """Effects, inbox and partition rows, all at once."""
    next_ = database.next
    for span in worker.batch:
        next_ = put(next_, span.partition, max(next_[span.partition], span.end))
    return Database(database.applied + worker.fresh, database.inbox | {event.id for event in worker.fresh}, next_)


def _append(world: World, partition: int, events: tuple[Event, ...]) -> World:
    return world._replace(log=put(world.log, partition, world.log[partition] + events))


def _reassigned(world: World, protocol: Protocol, owner: tuple[int, ...]) -> World:
    """Whoever owns a partition now reads from the bookmark, or from where the database stands if that is earlier."""
    stands = world.database.next if protocol.partition_rows else world.bookmark
    return world._replace(owner=owner, position=tuple(map(min, world.bookmark, stands)))


def wrong(world: World, *, quiet: bool) -> str | None:
    """What has gone wrong, if anything: per key, what was applied must be the beginning of what was told, in the end all of it."""
    for key in PARTITION:
        told = [event.id for event in world.told + world.uncommitted if event.key == key]
        applied = [event.id for event in world.database.applied if event.key == key]
        if len(set(applied)) < len(applied):
            return "applied twice"
        if set(applied) - set(told):
            return "applied, but never committed"
        if applied != told[: len(applied)]:
            return "applied out of order"
        if quiet and applied != told:
            return "lost"
    return None
