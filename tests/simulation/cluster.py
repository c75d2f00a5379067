"""One service of the simulated system: its group of workers, its leaders, and its database. All of it is the real code, but for the
broker's clients and the loops around it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

from aiosmtplib import SMTPDataError

from services.notifier import sender, store
from shared import dead_letters, requests
from shared.clock import Clock
from shared.consumer import Consumer
from shared.partitions import Place
from shared.relay import Relay
from shared.service import Applicable, Context, Effect, Route, Service
from shared.settings import Settings
from shared.transaction import Transactions
from tests.simulation.databases import Database
from tests.simulation.log import Group, Log, Member, Producer, Record
from tests.simulation.processes import Holders, Process, called


@dataclass
class Bug:
    """A mistake in one service's new version: messages of a type about a key break their handler, until it is mended."""

    service: str
    type: type[Applicable]
    key: str
    mended: bool = False
    struck: int = 0

    def in_route(self, route: Route[Any]) -> Route[Any]:
        """The route, with the mistake."""

        def handler(state: Any, message: Any, context: Context) -> Iterable[Effect]:
            if not self.mended and message.key == self.key:
                self.struck += 1
                raise ZeroDivisionError(f"a bug in {self.type.__name__} of {self.key}")
            return route.handler(state, message, context)

        return dataclasses.replace(route, handler=handler)

    def __str__(self) -> str:
        return f"{self.type.__name__} of {self.key} breaks {self.service}"


def with_bug(service: Service[Any], bug: Bug | None) -> Service[Any]:
    """The service, with the mistake if it is this service's."""
    if bug is None or bug.service != service.name:
        return service
    return dataclasses.replace(service, routes={**service.routes, bug.type: bug.in_route(service.routes[bug.type])})


class Worker:
    """A member of the group: the real consumer over a client of the simulated log."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.process = Process(f"{cluster.name}.{name}")
        self.member = Member(cluster.group)
        self._cluster = cluster
        self._pool = cluster.database.pools[name]
        self.looks_first = False
        """Whether it has just been given partitions, and is to see whether the database is behind their bookmarks."""
        self.taken = ""
        """What it polled last, for the timeline."""
        self.begin_anew()

    def begin_anew(self) -> None:
        """The process starts: with nothing in memory, at the bookmarks of its partitions."""
        cluster = self._cluster
        transactions = Transactions(cluster.service, cluster.settings, self._pool, cluster.now)
        self.consumer = Consumer(cluster.service, cluster.settings, transactions, lambda: None)
        self.consumer._subscriber.consumer = self.member
        self.assign(list(self.member.positions))

    def assign(self, places: Iterable[Place]) -> None:
        """A rebalance gives these partitions to this member; it looks first whether the database is behind the bookmarks."""
        self.consumer._reads_from.clear()
        self.member.assign(places)
        self.looks_first = True

    async def take(self, limits: Mapping[Place, int | None], *, prefetched: bool = False) -> None:
        """What FastStream's loop does with a batch: polls, hands it over, reads it again if that fails. After a rebalance the consumer
        first looks where the database stands; what was `prefetched` then comes all the same."""
        early = self._poll(limits) if prefetched else ()
        if self.looks_first:
            self.looks_first = False
            # aiokafka logs what a rebalance listener raises, and goes on.
            with contextlib.suppress(Exception):
                await self.consumer._catch_up(self.member.assignment())
        if batch := early or self._poll(limits):
            await self._handle(batch)
        if not self.consumer.alive:
            self.begin_anew()

    async def _handle(self, batch: tuple[Record, ...]) -> None:
        try:
            message: Any = SimpleNamespace(raw_message=batch, ack=self.member.commit)
            await self.consumer._handle(message)
        except Exception as error:  # noqa: BLE001  (as FastStream does)
            if not self.member.fenced:
                for record in reversed(batch):
                    self.member.positions[record.topic, record.partition] = record.offset
            await self.consumer._outcome(error)
        else:
            await self.consumer._outcome(None)

    def _poll(self, limits: Mapping[Place, int | None]) -> tuple[Record, ...]:
        unread = self.member.unread()
        spans = {place: self.member.poll(place, limit) for place, limit in limits.items() if place in unread}
        self.taken = ", ".join(f"{topic}/{number}[{span[0].offset}..{span[-1].offset}]" for (topic, number), span in spans.items())
        return tuple(record for span in spans.values() for record in span)


class MailServer:
    """Takes mails, refuses some addresses for good; may break the connection."""

    def __init__(self) -> None:
        self.is_connected = True
        self.taken: list[str] = []

    async def sendmail(self, _sender: str, recipient: str, content: bytes, **_: Any) -> None:
        """Takes the mail, or not."""
        await called("send mail", lambda: self._take(recipient, content))

    async def _take(self, recipient: str, content: bytes) -> None:
        if recipient.startswith("nobody"):
            raise SMTPDataError(550, f"no such mailbox: {recipient}")
        [message_id] = [line for line in content.split(b"\r\n") if line.startswith(b"Message-ID:")]
        self.taken.append(message_id.decode())

    async def connect(self) -> None:
        """Answers."""

    def close(self) -> None:
        """Hangs up."""


class Leader:
    """What the instance that leads does beside consuming: publishes, fires timers, sends mails, settles operators' requests."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.process = Process(f"{cluster.name}.{name}")
        self._cluster = cluster
        self._pool = cluster.database.pools[name]
        self.begin_anew()

    def begin_anew(self) -> None:
        """The process starts: with nothing in memory."""
        cluster = self._cluster
        self.transactions = Transactions(cluster.service, cluster.settings, self._pool, cluster.now)
        self.relay = Relay(cluster.settings, cluster.name, cluster.service.own)

    async def publish(self, producer: Producer) -> None:
        """One round of the relay."""
        async with self._pool.acquire() as connection:
            session: Any = connection
            await self.relay.round(session, producer)

    async def fire(self) -> None:
        """The timers that are due."""
        await self.transactions.fire()

    async def settle_requests(self) -> None:
        """What operators have asked for."""
        await requests.settle(self.transactions)

    async def send_mails(self, server: MailServer) -> None:
        """One round of mails."""
        mails = await store.queued(self._pool, sender.ROUND_MAILS)
        if mails:
            connection: Any = server
            await sender._sent_and_told([connection], mails, self._cluster.settings.mail_from, self.transactions.tell)


class Work(NamedTuple):
    """What waits in a service's database: rows of the outbox, dead letters that are parked, mails, and when the next timer is due."""

    unpublished: bool
    parked: bool
    mails: bool
    timer: datetime | None

    def due(self, now: datetime) -> bool:
        """Whether a timer is due."""
        return self.timer is not None and self.timer <= now


_WORK = """
    SELECT EXISTS (SELECT FROM runtime.outbox), EXISTS (SELECT FROM runtime.dead_letter WHERE state = 'parked'),
           (SELECT min(due) FROM runtime.timer)
"""


@dataclass
class Cluster:
    """See the module."""

    service: Service[Any]
    settings: Settings
    database: Database
    log: Log
    now: Clock
    waiting: "list[Worker | Leader]" = field(default_factory=list)
    """Who waits for a lock: the first for one that the second holds, and so on; the last for one of somebody who can go on."""
    _work: Work | None = None
    group: Group = field(init=False)
    workers: list[Worker] = field(init=False)
    leaders: list[Leader] = field(init=False)

    def __post_init__(self) -> None:
        self.group = Group(self.log, (topic.name for topic in self.service.topics))
        self.workers = [Worker(self, name) for name in self.database.pools if name.startswith("worker")]
        self.leaders = [Leader(self, name) for name in self.database.pools if name.startswith("leader")]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    def actors(self) -> "list[Worker | Leader]":
        """All of the service's processes."""
        return [*self.workers, *self.leaders]

    @property
    def holders(self) -> Holders | None:
        """Whom to ask who holds the lock that a process waits for; nobody, while there is no other that could hold one."""
        return self.database.holders if self.waiting or self.paused() else None

    def paused(self) -> "list[Worker | Leader]":
        """Those that have something under way."""
        return [actor for actor in self.actors() if actor.process.state == "paused"]

    def free_to_go_on(self) -> "list[Worker | Leader]":
        """Of them those that the scheduler may let go on. While somebody waits for a lock that is who holds it, and nobody else: so a
        lock that is let go of wakes one process, and the database never chooses between two."""
        return [actor for actor in self.paused() if not self.waiting or actor.process.pid in self.waiting[-1].process.waits_for]

    def rebalance(self, choose: Callable[[Sequence[Worker]], Worker]) -> str:
        """Every partition goes to a member that `choose` names. Members with a batch under way are fenced: they are too late to say
        that they are still there, but they go on with what they have."""
        staying = [worker for worker in self.workers if worker.process.idle]
        for worker in self.workers:
            if worker not in staying:
                worker.member.fenced, worker.member.positions = True, {}
        owned: dict[str, list[Place]] = {worker.process.name: [] for worker in staying}
        for place in self.group.places:
            owned[choose(staying).process.name].append(place)
        for worker in staying:
            worker.assign(owned[worker.process.name])
        return ", ".join(f"{name}: {' '.join(f'{topic}/{number}' for topic, number in places) or 'none'}" for name, places in owned.items())

    async def work(self) -> Work:
        """What waits, as far as it has been committed."""
        if self._work is None:
            eye: Any = self.database.eye
            unpublished, parked, timer = await eye.fetchrow(_WORK)
            mails = self.name == "notifier" and bool(await store.queued(eye, 1))
            self._work = Work(unpublished, parked, mails, timer)
        return self._work

    def stepped(self) -> None:
        """One of its processes may have changed what waits."""
        self._work = None

    async def ask_to_replay(self) -> int:
        """An operator asks for everything that is parked; answers how many keys."""
        rows = await self.database.eye.fetch(
            "SELECT min(id) AS id FROM runtime.dead_letter WHERE state = 'parked' GROUP BY aggregate ORDER BY 1"
        )
        for row in rows:
            await dead_letters.request(self.database.eye, row["id"], "replay", "operator")
        return len(rows)
