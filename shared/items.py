"""What a transaction applies: one message after the other, each with its origin and its neighbours in the log."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from shared.codec import OUR_SOURCE, Delivery, Envelope, Flaw, Origin, encode
from shared.contracts.base import ListedMessage, Message
from shared.dead_letters import Kind, Letter
from shared.service import Applicable, Invalid, Local, Service, Timer
from shared.timers import Due


class Item(NamedTuple):
    """One message to apply, and where it came from.

    Neighbours have consecutive `position`s: items of one partition between which nothing of the log was left out (a duplicate,
    something that is no message). What came by itself has position 0, and no neighbours.
    """

    message: Applicable
    origin: Origin
    envelope: Envelope
    position: int = 0

    @property
    def cause(self) -> str:
        """How effects name this item."""
        return f"{self.envelope.id}#{self.origin.index}" if isinstance(self.message, ListedMessage) else self.envelope.id

    @property
    def type(self) -> str:
        """The contract's type name, or the class of a timer or local message."""
        return self.message.TYPE if isinstance(self.message, Message) else type(self.message).__name__

    @property
    def kind(self) -> Kind:
        """The type, and what this is the level of."""
        return self.type, self.message.level if isinstance(self.message, Message) else None

    @property
    def due(self) -> Due | None:
        """The timer that this is, if it is one."""
        return (self.type, self.message.key, self.envelope.time) if isinstance(self.message, Timer) else None

    def letter(self, reason: str, detail: str, aggregate: str | None, *, parked: bool, waits_for: str | None = None) -> Letter:
        """This item as a dead letter."""
        body = encode(self.message) if isinstance(self.message, Message) else self.message.model_dump_json().encode()
        envelope = self.envelope._replace(type=self.type)
        return Letter("parked" if parked else "refused", reason, detail, aggregate, self.kind[1], self.origin, envelope, body, waits_for)


def of_records(service: Service[Any], deliveries: Iterable[Delivery]) -> Iterator[Item]:
    """The messages of records that the service takes, and its answers to what is wrong with them, in the order of the log.

    A type that the service does not take is nothing to it, and separates no neighbours.
    """
    routes = service.routes
    position, following = 0, ("", 0, 0)
    for delivery in deliveries:
        topic, partition, offset, envelope = delivery.topic, delivery.partition, delivery.offset, delivery.envelope
        if (topic, partition, offset) != following:
            position += 1
        following = (topic, partition, offset + 1)
        found: Iterable[tuple[int, Message | Flaw]] = delivery.messages
        if delivery.flaws:
            found = sorted((*delivery.messages, *delivery.flaws), key=itemgetter(0))
        for index, content in found:
            if isinstance(content, Flaw):
                position += 1
                answer = _answer(service, envelope.type, content)
                if answer is not None:
                    yield Item(answer, Origin(topic, partition, offset, index), envelope, position)
            elif type(content) in routes:
                position += 1
                yield Item(content, Origin(topic, partition, offset, index), envelope, position)


def _answer(service: Service[Any], type_: str, flaw: Flaw) -> Local | None:
    return None if flaw.data is None else service.invalid(Invalid(type_, flaw.data, flaw.errors))


def of_the_service(service: str, message: Timer | Local, id_: str, time: datetime) -> Item:
    """What a service tells itself: a timer due at `time`, or something said then (business time, UTC)."""
    envelope = Envelope(type(message).__name__, f"{OUR_SOURCE}{service}", id_, time, time, "", ())
    return Item(message, Origin("", 0, 0), envelope)
