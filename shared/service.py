"""What a service is made of: a table {message → handler}, three store functions, and what a handler may answer.

One transaction of the runtime (`shared.transaction`) is

    state = await service.load(tx, messages)        lock and load, in sets, everything the messages touch
    for each message, in order:
        effects += handler(state, message, context)     pure: no I/O, no clock; changes only the working set `state`
    await service.prepare(tx, state)                load what only the changed state can tell (the head of a queue)
    effects += service.decide(state, context)       once per transaction: once per SKU, per supplier, per order
    service.checks                                  look at all of it with other eyes: what breaks an invariant is not saved
    await service.save(tx, state, context)          write in sets what changed

All of it is one database transaction together with the inbox, the outbox and the journal row.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from shared.contracts.base import JsonObject, Message, Topic
from shared.contracts.orders import FieldError
from shared.settings import Settings

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy
    from fastapi import APIRouter

    from shared.http import Edge

Connection: TypeAlias = "PoolConnectionProxy[Any]"
S = TypeVar("S")


class NotReadyError(Exception):
    """Something that a service needs is not there yet; it is asked for again."""


class Context(NamedTuple):
    """What a handler may know besides state and message.

    `now` is business time (UTC); `number` is the transaction's number in the journal and the version of every level that
    it sends; `cause` and `actor` name the message being applied and who stands behind it; `time` is when that message
    happened, `appended` when the broker took its record (UTC); both are when a timer was due, or when something was said that a
    service tells itself. In `decide` the last four are empty or `now`.
    """

    now: datetime
    number: int
    cause: str
    actor: str
    time: datetime
    appended: datetime


class Timer(BaseModel):
    """Something due at a business time: a message from the service to itself. `key` is what it is about.

    Subclass it per kind and give it a route; a pending timer is known by (class name, key), so setting it again moves it.
    """

    model_config = ConfigDict(frozen=True)
    key: str


class Local(BaseModel):
    """Base of what a service's own process tells it (a mail was sent, an order could not be read): no topic, no inbox."""

    model_config = ConfigDict(frozen=True)


class Repair(Local):
    """An operator wants a broken aggregate (`sku:S-1`) put right from what can still be told: recomputed, decided anew, told anew.

    Its handler answers a `Corrected` for each number that it changes, and raises IrreparableError when nothing tells what is right.
    """

    aggregate: str
    actor: str
    reason: str

    @property
    def key(self) -> str:
        """The aggregate's key."""
        return self.aggregate.partition(":")[2]


class IrreparableError(Exception):
    """What is right cannot be told from what is kept; the text says what an operator has to find out."""


Applicable: TypeAlias = Message | Timer | Local
"""What handlers are called with."""


class Running(Protocol):
    """What a background loop may use of its process."""

    settings: Settings
    pool: "asyncpg.Pool[Any]"
    stopping: asyncio.Event

    async def tell(self, messages: Sequence[Local]) -> None:
        """Applies what this process has to say, in one transaction."""
        ...


class Send(NamedTuple):
    """A message to publish whose cause is not the message being applied (always so in `decide`)."""

    message: Message
    cause: str
    actor: str = ""


class Schedule(NamedTuple):
    """Set or move a timer to a business time."""

    timer: Timer
    due: datetime


class Unschedule(NamedTuple):
    """Forget a timer; unknown ones are fine."""

    timer: Timer


class Refuse(NamedTuple):
    """The message, or a part of it, cannot be applied: it is kept among the dead letters with this reason and holds nobody up.

    `reason` is a short code (`unknown_purchase_order`), `detail` a sentence for the sender's engineer.
    """

    reason: str
    detail: str


class Corrected(NamedTuple):
    """A number that a repair has put right: a sentence for the operator and the record."""

    detail: str


Effect: TypeAlias = Message | Send | Schedule | Unschedule | Refuse | Corrected
"""What a handler answers. A bare message (a listed one names its own `causation`) is caused by the message being applied."""

Handler: TypeAlias = Callable[[S, Any, Context], Iterable[Effect]]


class Broken(NamedTuple):
    """Something that is always true, and is not, of this aggregate (`sku:S-1`); `detail` is a sentence with the numbers."""

    aggregate: str
    detail: str


Check: TypeAlias = Callable[[S, Sequence[Message], Context], Iterable[Broken]]
"""Looks at what a transaction changed, before it is saved, and at the messages to be published, in their order. What was only
loaded is none of its business: it may be broken, and its messages wait."""


@dataclass(frozen=True, slots=True)
class Route(Generic[S]):
    """How a message type is applied. `aggregate` names what must keep its order (`order:A-1`): when applying fails, the message
    is parked and later ones of the same aggregate wait behind it. `touches` names what else it changes, as loaded: it waits
    while one of them is quarantined."""

    handler: Handler[S]
    aggregate: Callable[[Any], str]
    touches: Callable[[S, Any], Iterable[str]] = lambda _state, _message: ()


@dataclass(frozen=True, slots=True)
class Watched:
    """Aggregates of one kind (`sku`: they are `sku:<key>`), and what is always true of them: invariant → SQL over whole tables
    whose rows are violations, each with the key.

    `tables` = every table or view with rows of such aggregates → the column with the key; the first has a row for each. So a check
    can be asked of some keys only, slice by slice if the tables have an index for that (`sliced`). `history` = SQL for (number,
    message) of the transactions after the journal's $2 that touched the aggregate $1, the first first.
    """

    kind: str
    tables: Mapping[str, str]
    checks: Mapping[str, str]
    history: str = ""
    sliced: bool = True


@dataclass(frozen=True, slots=True)
class Invalid:
    """A record that is no valid message: its type name as sent, its data if it was a JSON object, and what is wrong."""

    type: str
    data: JsonObject
    errors: tuple[FieldError, ...]


async def _nothing_more(_tx: Connection, _state: Any) -> None:
    return None


def _nothing_to_decide(_state: Any, _context: Context) -> Iterable[Effect]:
    return ()


@dataclass(frozen=True)
class Service(Generic[S]):
    """One service, declared in its `app.py`. `topics` stand in the order in which a batch applies them
    (definitions, supply, demand). `invalid` may turn an unreadable record into a `Local` message (to answer its sender)."""

    name: str
    topics: tuple[Topic, ...]
    routes: Mapping[type[Applicable], Route[S]]
    load: Callable[[Connection, Sequence[Applicable]], Awaitable[S]]
    save: Callable[[Connection, S, Context], Awaitable[None]]
    migrations: Path
    api: "Callable[[Edge], APIRouter]"
    prepare: Callable[[Connection, S], Awaitable[None]] = _nothing_more
    decide: Callable[[S, Context], Iterable[Effect]] = _nothing_to_decide
    invalid: Callable[[Invalid], Local | None] = lambda _: None
    checks: Mapping[str, Check[S]] = field(default_factory=dict)
    """Invariant → its check of what a transaction touched. Nothing is saved that breaks one: the message that would is parked."""
    watched: Sequence[Watched] = ()
    """What is looked at in the background; what is found broken is quarantined until it is repaired."""
    background: Sequence[Callable[[Running], Coroutine[Any, Any, None]]] = field(default=())
    """Loops that run on one instance at a time (the one that holds the relay's lock), e.g. sending mails."""
    read_back: "Service[S] | None" = None
    """The same service while its database, restored from a backup, is behind what it has told (`shared.read_back`): its topics and
    those that only it writes, in the order in which they are read again, and whatever is done differently meanwhile."""

    @property
    def own(self) -> tuple[Topic, ...]:
        """The topics that only this service writes, and reads back after a restore."""
        return tuple(topic for topic in self.read_back.topics if topic not in self.topics) if self.read_back else ()

    def invariants(self) -> list[str]:
        """The names of all of them, those of transactions and those of tables."""
        return list(dict.fromkeys([*self.checks, *(name for watched in self.watched for name in watched.checks)]))
