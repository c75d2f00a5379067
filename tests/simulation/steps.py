"""What may happen next while faults are on, each kind as often as the seed has it (a world has its own mixture of faults)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from tests.simulation.cluster import Cluster
from tests.simulation.log import Draft
from tests.simulation.poison import KINDS
from tests.simulation.processes import FREE, Blow, Leash
from tests.simulation.world import World

AT_ONCE = 3
"""Transactions of one service that may be open at the same time."""
FARTHEST = 16
"""A leash reaches at most this many calls: most transactions make fewer."""

Step: TypeAlias = Callable[[World, "Mixture"], Awaitable[bool]]
"""Answers whether it could be done."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """How much of each kind of trouble: weights of steps, and shares of transactions and of publications that something befalls."""

    weights: dict[str, float]
    struck: float
    paused: float
    unacknowledged: float


def mixture(world: World) -> Mixture:
    """The world's own: some kinds are absent, so that others can have their full effect."""
    random = world.random
    weights = {name: float(weight) for name, (weight, _) in STEPS.items()}
    for name in FAULTS:
        weights[name] *= random.choice((0, 0, 1, 2))
    return Mixture(weights, random.choice((0, 0.1, 0.25)), random.choice((0, 0.25, 0.5)), random.choice((0, 0.15, 0.4)))


def crowded(_world: World) -> Mixture:
    """Nothing fails, but transactions overlap as much as they can, and partitions keep changing hands."""
    weights = {name: 0.0 if name in FAULTS else weight for name, (weight, _) in STEPS.items()}
    return Mixture({**weights, "rebalance": 3.0}, struck=0, paused=0.6, unacknowledged=0)


async def disturb(world: World, mix: Mixture, steps: int) -> None:
    """So many random steps."""
    names, weights = list(mix.weights), list(mix.weights.values())
    while steps and not await world.is_over():
        steps -= await STEPS[world.random.choices(names, weights)[0]][1](world, mix)


def leash(world: World, mix: Mixture) -> Leash:
    """How far the next process may go."""
    random, fate = world.random, world.random.random()
    if fate < mix.struck:
        where = random.choice(({"calls": random.randint(1, FARTHEST)}, {"at": "COMMIT"}, {"at": "acknowledge"}))
        return Leash(**where, blow=random.choice(list(Blow)), after=random.random() < 0.5)
    if fate < mix.struck + mix.paused:
        # The two places where most may have changed meanwhile: between reading and locking, and with all locks in hand.
        return Leash(**random.choice(({"calls": random.randint(2, FARTHEST)}, {"at": "BEGIN"}, {"at": "COMMIT"})))
    return FREE


def _cluster(world: World) -> Cluster:
    """A service, most often one with a transaction under way: what others do meanwhile is what may go wrong."""
    clusters = list(world.clusters.values())
    busy = [cluster for cluster in clusters if cluster.paused()]
    return world.random.choice(busy if busy and world.random.random() < 0.6 else clusters)


def _free(cluster: Cluster) -> bool:
    """Whether another process of the service may begin something."""
    return not cluster.waiting and len(cluster.paused()) < AT_ONCE


async def take(world: World, mix: Mixture) -> bool:
    """A worker takes a batch: some of its partitions, some of their records; what is left is late."""
    cluster = _cluster(world)
    workers = [worker for worker in cluster.workers if worker.process.idle and (worker.looks_first or worker.member.unread())]
    if not workers or not _free(cluster):
        return False
    worker, random = world.random.choice(workers), world.random
    unread = worker.member.unread()
    places = [place for place in unread if random.random() < 0.5] or random.sample(unread, len(unread[:1]))
    limits = {place: random.choice((1, 1, 2, None)) for place in places}
    await world.deliver(cluster, worker, limits, leash(world, mix), prefetched=random.random() < 0.2)
    return True


async def go_on(world: World, mix: Mixture) -> bool:
    """A paused process goes on, perhaps to another pause."""
    free = [(cluster, actor) for cluster in world.clusters.values() for actor in cluster.free_to_go_on()]
    if not free:
        return False
    await world.go_on(*world.random.choice(free), leash(world, mix))
    return True


async def publish(world: World, mix: Mixture) -> bool:
    """A relay's round. The second instance takes itself for the leader, too, now and then."""
    cluster = _cluster(world)
    leader = cluster.leaders[0 if world.random.random() < 0.8 else 1]
    if not leader.process.idle or not _free(cluster) or not (await cluster.work()).unpublished:
        return False
    await world.publish(cluster, leader, leash(world, mix), mix.unacknowledged)
    return True


async def fire(world: World, mix: Mixture) -> bool:
    """Timers that are due."""
    cluster = _cluster(world)
    leader = world.random.choice(cluster.leaders)
    if not leader.process.idle or not _free(cluster) or not (await cluster.work()).due(world.now):
        return False
    await world.begin(cluster, leader, "fires timers", leader.fire(), leash(world, mix))
    return True


async def send_mails(world: World, mix: Mixture) -> bool:
    """A round of mails."""
    cluster = world.clusters["notifier"]
    leader = world.random.choice(cluster.leaders)
    if not leader.process.idle or not _free(cluster) or not (await cluster.work()).mails:
        return False
    reach = leash(world, mix)
    world.disturbed_mails += reach is not FREE
    await world.begin(cluster, leader, "sends mails", leader.send_mails(world.mail_server), reach)
    return True


async def outside(world: World, _mix: Mixture) -> bool:
    """Outsiders read, and say what is due; some later than others."""
    world.outside.listen(world.random)
    told = world.outside.due(world.now, limit=world.random.choice((1, 2, 5)))
    for line in told:
        world.note(f"outside: {line}")
    return bool(told)


async def pass_time(world: World, _mix: Mixture) -> bool:
    """Business time moves on: to what outsiders do next, or to some other moment."""
    due = world.outside.next_due
    if due is not None and due > world.now and world.random.random() < 0.6:
        world.now = due
    else:
        world.now += timedelta(minutes=world.random.choice((5, 60, 360)))
    world.note("time passes")
    return True


async def repeat(world: World, _mix: Mixture) -> bool:
    """Any record comes again, some time later."""
    place = world.random.choice(world.log.places)
    records = world.log.read(place, 0)
    if not records:
        return False
    record = world.random.choice(records)
    again = Draft(record.key, record.value, record.headers)
    world.log.append(place, [again])
    reasons = {bad.reason for bad in world.poison if bad.by_place and (*bad.draft[:2], tuple(bad.draft.headers)) == again}
    for reason in reasons:
        world.expect_letter(place, reason)
    world.note(f"{place[0]}/{place[1]}[{record.offset}] comes again as [{world.log.end(place) - 1}]")
    return True


async def tell_again(world: World, _mix: Mixture) -> bool:
    """An outsider says the same under another message id."""
    if not world.outside.said:
        return False
    place, record = world.random.choice(world.outside.said)
    attributes = dict(record.headers)
    before, now = (attributes["ce_id"] or b"").decode(), f"again-{len(world.timeline)}"
    world.log.append(place, [record._replace(headers=list({**attributes, "ce_id": now.encode()}.items()))])
    world.again[now] = before
    if before.startswith("count-"):
        world.expect_letter(place, "already_counted", now)
    world.note(f"outside: {before} told again as {now} in {place[0]}/{place[1]}[{world.log.end(place) - 1}]")
    return True


async def poison(world: World, _mix: Mixture) -> bool:
    """Somebody publishes what is no message, or none that can be applied."""
    kind = world.random.choice(KINDS)
    bad = kind(world.outside, world.random, len(world.timeline), world.now)
    if bad is None:
        return False
    world.poison.append(bad)
    world.log.append(bad.place, [bad.draft])
    world.expect_letter(bad.place, bad.reason, "" if bad.by_place else bad.id)
    world.note(f"outside: poison ({bad.kind}) in {bad.place[0]}/{bad.place[1]}[{world.log.end(bad.place) - 1}]")
    return True


async def skip_offset(world: World, _mix: Mixture) -> bool:
    """An offset that no record has."""
    place = world.random.choice(world.log.places)
    world.log.skip(place)
    world.note(f"{place[0]}/{place[1]}[{world.log.end(place) - 1}] is no record")
    return True


async def rebalance(world: World, _mix: Mixture) -> bool:
    """Partitions change hands; who is in the midst of a batch loses all of its own."""
    cluster = _cluster(world)
    if not any(worker.process.idle for worker in cluster.workers):
        return False
    world.note(f"{cluster.name} rebalances: {cluster.rebalance(world.random.choice)}")
    return True


async def move_bookmarks(world: World, mix: Mixture) -> bool:
    """Somebody resets the group's offsets, back or forth, while it has no members (else the broker would refuse)."""
    cluster = _cluster(world)
    if any(not worker.process.idle for worker in cluster.workers):
        return False
    for place in cluster.group.places:
        if world.random.random() < 0.5:
            cluster.group.bookmarks[place] = world.random.choice((0, world.random.randint(0, world.log.end(place)), world.log.end(place)))
    moved = " ".join(f"{topic}/{number}={offset}" for (topic, number), offset in cluster.group.bookmarks.items())
    world.note(f"{cluster.name} has its bookmarks moved: {moved}")
    world.note(f"{cluster.name} rebalances: {cluster.rebalance(world.random.choice)}")
    return True


async def operate(world: World, mix: Mixture) -> bool:
    """An operator brings the mended version out, and has everything that is parked replayed."""
    if world.bug is None:
        return False
    cluster = world.clusters[world.bug.service]
    leader = cluster.leaders[0]
    if not leader.process.idle or not _free(cluster):
        return False
    world.bug.mended = True
    asked = await cluster.ask_to_replay()
    await world.begin(cluster, leader, f"is asked to replay {asked} parked", leader.settle_requests(), leash(world, mix))
    return True


async def arrive_late(world: World, _mix: Mixture) -> bool:
    """What a producer gave up on arrives after all."""
    if not world.log.late:
        return False
    place, drafts = world.log.late.pop(world.random.randrange(len(world.log.late)))
    world.log.append(place, drafts)
    world.note(f"{len(drafts)} late records arrive in {place[0]}/{place[1]}")
    return True


STEPS: dict[str, tuple[float, Step]] = {
    "take": (10, take),
    "go on": (2, go_on),
    "publish": (6, publish),
    "fire": (4, fire),
    "send mails": (1, send_mails),
    "outside": (4, outside),
    "pass time": (2.5, pass_time),
    "repeat": (1, repeat),
    "tell again": (0.7, tell_again),
    "poison": (0.7, poison),
    "skip offset": (0.4, skip_offset),
    "rebalance": (0.7, rebalance),
    "move bookmarks": (0.4, move_bookmarks),
    "operate": (0.3, operate),
    "arrive late": (1, arrive_late),
}
"""Name → how often, and what."""
FAULTS = ("repeat", "tell again", "poison", "skip offset", "rebalance", "move bookmarks")
"""Steps that a world may be spared."""
