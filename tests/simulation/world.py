"""A world: one seed's story, the four services, and a scheduler that alone decides what happens next.

Two phases: while faults are on, random steps; then everything settles by itself, step by step of business time. `timeline` tells all.
"""

import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import structlog
from aiokafka.errors import KafkaError

from deploy.local.settled import declared
from services.notifier import sender
from shared import consumer, db, outbox, relay, transaction
from shared.partitions import Place
from shared.service import Service
from shared.settings import SERVICES, Settings
from tests.simulation.cluster import Bug, Cluster, Leader, MailServer, Worker, with_bug
from tests.simulation.databases import Databases
from tests.simulation.log import Log, Producer
from tests.simulation.outsiders import Outside
from tests.simulation.poison import Poison
from tests.simulation.processes import CURRENT, FREE, Killed, Leash
from tests.simulation.story import START, story
from tests.simulation.violation import ViolatedError

PARTITIONS = 2
SETTINGS = Settings(partitions=PARTITIONS, time_zone="UTC", consolidation_hours=4.0, digest_minutes=15.0)
DECLARED: tuple[Service[Any], ...] = tuple(declared(name, SETTINGS) for name in SERVICES)
LONGEST = timedelta(days=120)
"""After so much business time everything has been delivered, or never will be."""
ROUNDS = 200
"""So many times round without the clock moving, and something goes in circles."""


class Letter(NamedTuple):
    """A dead letter that must be kept: by which service, why, and of which message (its id, or its place if it has none of its own)."""

    service: str
    reason: str
    identity: str


@dataclass
class World:
    """See the module."""

    seed: int
    databases: Databases
    services: tuple[Service[Any], ...] = DECLARED
    bug: Bug | None = None
    now: datetime = START
    ticks: float = 0.0
    """What monotonic clocks show."""
    timeline: list[str] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)
    """Message id → the id under which an outsider had said the same before."""
    watch: Callable[["World", list[str]], Awaitable[None]] | None = None
    """Asked after each step of a service."""
    own_ids: set[str] = field(default_factory=set)
    """Ids of timers and of what services tell themselves."""
    disturbed_mails: int = 0
    """Rounds of mails that were not let through to their end at once."""

    def __post_init__(self) -> None:
        self.random = Random(f"steps {self.seed}")
        self.story = story(self.seed)
        self.log = Log(PARTITIONS, lambda: self.now)
        self.outside = Outside(self.seed, self.story, self.log, PARTITIONS)
        self.mail_server = MailServer()
        self.clusters = {
            service.name: Cluster(
                with_bug(service, self.bug), SETTINGS, self.databases.by_service[service.name], self.log, lambda: self.now
            )
            for service in self.services
        }

    # what every step uses

    def note(self, text: str) -> None:
        """Adds to the timeline."""
        self.timeline.append(f"{len(self.timeline):4} {self.now:%d %b %H:%M} {text}")

    async def begin(self, cluster: Cluster, actor: Worker | Leader, what: str, work: Coroutine[Any, Any, Any], leash: Leash = FREE) -> None:
        """An idle process begins some work."""
        await self._stepped(cluster, actor, what, leash, actor.process.begin(work, leash, cluster.holders))

    async def go_on(self, cluster: Cluster, actor: Worker | Leader, leash: Leash = FREE) -> None:
        """A paused process goes on."""
        what = f"goes on with {actor.process.last_call!r}"
        await self._stepped(cluster, actor, what, leash, actor.process.go_on(leash, cluster.holders))

    async def _stepped(self, cluster: Cluster, actor: Worker | Leader, what: str, leash: Leash, step: Awaitable[None]) -> None:
        self.ticks += 0.4
        actor.process.waited_for = bool(cluster.waiting)
        await step
        while actor.process.state == "halted":
            await self._unblock(cluster, actor)
            actor.process.waited_for = bool(cluster.waiting)
            await actor.process.resume(cluster.holders)
        cluster.stepped()
        taken = f" {actor.taken}" if what == "takes" and isinstance(actor, Worker) else ""
        self.note(f"{actor.process.name} {what}{taken}: {leash} → {actor.process.outcome()}")
        self._ended(actor)
        if actor.process.state == "blocked":
            cluster.waiting.append(actor)
        await self._unblock(cluster, actor)
        if cluster.waiting and not cluster.free_to_go_on():
            waiting = [f"{actor.process.name} at {actor.process.last_call!r}" for actor in cluster.waiting]
            raise ViolatedError({"no two transactions wait for each other": waiting})
        if self.watch is not None:
            await self.watch(self, [cluster.name])

    def _ended(self, actor: Worker | Leader) -> None:
        """A process that ended badly begins anew; only errors that pass by themselves are expected."""
        process = actor.process
        if not process.idle:
            return
        if process.error is None:
            return
        actor.begin_anew()
        if not isinstance(process.error, (Killed, *db.TRANSIENT, KafkaError)):
            raise ViolatedError({"nothing but passing errors stops a process": [repr(process.error)]}) from process.error

    async def _unblock(self, cluster: Cluster, holder: Worker | Leader) -> None:
        """Lets whoever waits go on to its next call, if the holder has let go of its lock: the last one first, as the others wait for it."""
        while cluster.waiting:
            process = cluster.waiting[-1].process
            process.waits_for = await cluster.database.holders(process.pid)
            if process.waits_for:
                return
            await process.settle(cluster.database.holders)
            if process.state != "blocked":  # else it has been woken only to wait for somebody else
                cluster.stepped()
                self.note(f"{process.name} gets its lock from {holder.process.name} → {process.outcome()}")
                self._ended(cluster.waiting.pop())

    async def deliver(
        self, cluster: Cluster, worker: Worker, limits: Mapping[Place, int | None], leash: Leash = FREE, *, prefetched: bool = False
    ) -> None:
        """A worker polls these partitions and takes what it got."""
        await self.begin(cluster, worker, "takes", worker.take(limits, prefetched=prefetched), leash)

    async def publish(self, cluster: Cluster, leader: Leader, leash: Leash = FREE, trouble: float = 0.0) -> None:
        """A relay publishes."""
        producer = Producer(self.log, self.random, trouble)
        await self.begin(cluster, leader, "publishes", leader.publish(producer), leash)
        if producer.told:
            self.note(f"  {', '.join(producer.told)}")

    def expect_letter(self, place: Place, reason: str, id_: str = "") -> None:
        """A dead letter that must be kept of the record just appended; it is known by its place unless by an id."""
        service = next(cluster.name for cluster in self.clusters.values() if place in cluster.group.places)
        self.letters.append(Letter(service, reason, id_ or f"{place[0]}/{place[1]}[{self.log.end(place) - 1}]"))

    def new_own_id(self) -> uuid.UUID:
        """An id of a timer, or of what a service tells itself."""
        own = self.new_id()
        self.own_ids.add(str(own))
        return own

    def new_id(self) -> uuid.UUID:
        """Ids that are the same in every run, and in no order: a hash of who asks and how often."""
        process = CURRENT.get()
        assert process is not None
        process.ids += 1
        digest = hashlib.blake2b(f"{self.seed}|{process.name}|{process.ids}".encode(), digest_size=16).digest()
        return uuid.UUID(bytes=digest)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing but the seed decides: ids, monotonic clocks and pauses are the world's; logs are silent."""
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(outbox, "new_id", self.new_id))
            stack.enter_context(mock.patch.object(transaction, "new_id", self.new_own_id))
            stack.enter_context(mock.patch.object(relay, "monotonic", self._monotonic))
            stack.enter_context(mock.patch.object(consumer, "_PAUSES", (0.0,)))
            stack.enter_context(mock.patch.object(sender, "ROUND_SECONDS", float("inf")))
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
            stack.callback(structlog.reset_defaults)
            yield

    def _monotonic(self) -> float:
        return self.ticks

    # the quiet phase

    async def prepare(self) -> None:
        """What is there before anything goes wrong: the catalogue, the opening counts, the offers, all of them applied; then it goes well
        for some days, so that the trouble begins in any part of an order's life."""
        for cluster in self.clusters.values():
            self.note(f"{cluster.name}: {cluster.rebalance(self.random.choice)}")
        for publication in self.story.before:
            self.outside.say(publication)
        await self.flow()
        until = self.now + timedelta(hours=self.random.choice((0, 0, 5, 30, 72)))
        while await self.move_clock(until):
            await self.flow()

    async def settle(self, look: Callable[[], Awaitable[None]] | None = None) -> None:
        """Faults are over: what is under way ends, mistakes are mended, everything flows until nothing is left to do at any time.
        `look` is called now and then when nothing is under way."""
        await self._calm_down()
        while True:
            await self.flow()
            if await self._replayed():
                await self.flow()
            if look is not None:
                await look()
            if not await self.move_clock():
                return
            if self.now > START + LONGEST:
                raise ViolatedError({"everything settles": ["timers and outsiders never come to an end"]})

    async def _calm_down(self) -> None:
        """What is under way comes to its end, late records arrive, fenced members come back, and the mistake is mended."""
        for place, drafts in self.log.late:
            self.log.append(place, drafts)
        self.log.late.clear()
        for cluster in self.clusters.values():
            while free := cluster.free_to_go_on():
                await self.go_on(cluster, free[0])
            if any(worker.member.fenced for worker in cluster.workers):
                self.note(f"{cluster.name}: {cluster.rebalance(lambda workers: workers[0])}")
        if self.bug is not None:
            self.bug.mended = True

    async def _replayed(self) -> bool:
        """Whether operators asked for something parked to be replayed."""
        asked = False
        for cluster in self.clusters.values():
            if (await cluster.work()).parked:
                await cluster.ask_to_replay()
                await self.begin(cluster, cluster.leaders[0], "replays what is parked", cluster.leaders[0].settle_requests())
                asked = True
        return asked

    async def flow(self) -> None:
        """Everything that can be done now is done, in a fixed order."""
        for _ in range(ROUNDS):
            self.outside.listen()
            told = self.outside.due(self.now)
            for line in told:
                self.note(f"outside: {line}")
            done = [await self._flows(cluster) for cluster in self.clusters.values()]
            if not any(done) and not told:
                return
        raise ViolatedError({"everything settles": ["messages go in circles"]})

    async def _flows(self, cluster: Cluster) -> bool:
        """One service does what there is to do; answers whether there was anything."""
        busy = False
        for worker in cluster.workers:
            while (places := worker.member.unread()) or worker.looks_first:
                busy = True
                await self.deliver(cluster, worker, dict.fromkeys(places))
        leader = cluster.leaders[0]
        while (await cluster.work()).unpublished:
            busy = True
            self.ticks += 2  # a partition that was refused rests for a second
            await self.publish(cluster, leader)
        if (await cluster.work()).mails:
            busy = True
            await self.begin(cluster, leader, "sends mails", leader.send_mails(self.mail_server))
        if (await cluster.work()).due(self.now):
            busy = True
            await self.begin(cluster, leader, "fires timers", leader.fire())
        return busy

    async def end(self) -> None:
        """Ends what is under way, so that the next world finds its processes idle."""
        for cluster in self.clusters.values():
            for actor in cluster.actors():
                await actor.process.kill()

    async def is_over(self) -> bool:
        """Whether nothing is left to do, now or later."""
        clusters = self.clusters.values()
        if self.outside.next_due is not None or any(not actor.process.idle for cluster in clusters for actor in cluster.actors()):
            return False
        if any(worker.member.unread() for cluster in clusters for worker in cluster.workers):
            return False
        waiting = [await cluster.work() for cluster in clusters]
        return not any(work.unpublished or work.mails or work.timer for work in waiting)

    async def move_clock(self, until: datetime | None = None) -> bool:
        """On to whatever is due next, and perhaps a little further; answers whether there is anything (before `until`)."""
        timers = [(await cluster.work()).timer for cluster in self.clusters.values()]
        due = [moment for moment in (*timers, self.outside.next_due) if moment is not None]
        if not due or (until is not None and min(due) > until):
            return False
        self.now = max(self.now, min(due)) + timedelta(minutes=self.random.choice((0, 30, 360, 720)))
        return True
