"""The two doors of the system, as somebody stubborn uses them: by HTTP or by Kafka, again and again, until told that it is accepted.

What one door does not take in time goes through the other one under the same id: whoever gets no answer asks again, and both may
have come through. Messages of one key go one after the other; those of different keys overtake one another.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from deploy.chaos.hostile import Said
from deploy.chaos.violation import Violation
from deploy.local.choice import fraction
from deploy.local.publisher import Persistent, Publication
from shared.auth import Role, key_for
from shared.codec import cloud_event_headers, encode, partition_of
from shared.contracts.commerce import OrderCancelRequested, OrderPlaced, ShipmentConfirmed
from shared.contracts.suppliers import GoodsReceived, PurchaseOrderAcknowledged
from shared.settings import Settings

MARK = "chaos"
"""The header by which a record is known again, whatever else is unreadable in it."""
HTTP_SHARE = 0.35
STRUCTURED_SHARE = 0.15
LOOKS_SHARE = 0.3
HTTP_ATTEMPTS, HTTP_SECONDS = 3, 3.0


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Something said that the system has accepted: by a 202 (`mark` empty), or by the acknowledgement of a record that bears `mark`."""

    said: Publication
    mark: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """CloudEvents source and id."""
        return self.said.source, self.said.id

    @property
    def expects(self) -> frozenset[str]:
        """The reasons for which it, or a part of it, must be refused."""
        return self.said.expects if isinstance(self.said, Said) else frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """A message as an HTTP request, and as whom."""

    service: str
    path: str
    role: Role
    name: str
    body: Any


@dataclass
class Doors:
    """An outlet for the driver. `addresses` answers where a service's instances are (`http://…`). It goes by itself through whatever
    is broken; what it sees that may never be seen stands in `violations`."""

    settings: Settings
    addresses: Callable[[str], Sequence[str]]
    seed: int
    accepted: list[Acceptance] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    answers: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _waiting: list[Publication] = field(default_factory=list)
    _number: int = 0

    async def __aenter__(self) -> Self:
        self._kafka = await Persistent(self.settings).__aenter__()
        self._http = httpx.AsyncClient(trust_env=False, timeout=HTTP_SECONDS)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()
        await self._kafka.__aexit__(kind, error, trace)

    async def send(self, said: Publication) -> None:
        """Hands a message over."""
        self._waiting.append(said)

    async def flush(self) -> None:
        """Returns when everything handed over has been accepted."""
        waiting, self._waiting = self._waiting, []
        keys: defaultdict[tuple[str, str], list[Publication]] = defaultdict(list)
        for said in waiting:
            keys[said.message.TOPIC.name, said.message.key].append(said)
        await asyncio.gather(*(self._one_by_one(messages) for messages in keys.values()))

    async def _one_by_one(self, messages: Sequence[Publication]) -> None:
        for said in messages:
            request = _request(said)
            if request is None or fraction(self.seed, "door", said.id) >= HTTP_SHARE or not await self._post(said, request):
                await self._append(said)

    async def _append(self, said: Publication) -> None:
        self._number += 1
        mark = f"k{self._number}"
        structured = fraction(self.seed, "mode", said.id, said.time) < STRUCTURED_SHARE
        value, headers = (_structured if structured else _binary)(said)
        message = said.message
        partition = partition_of(message.key, self.settings.partitions)
        await self._kafka.append(
            message.TOPIC.name, value, key=message.key.encode(), partition=partition, headers=[*headers, (MARK, mark.encode())]
        )
        self.accepted.append(Acceptance(said, mark))

    async def _post(self, said: Publication, request: Request) -> bool:
        """Whether one of the instances has accepted it."""
        for attempt in range(HTTP_ATTEMPTS):
            address = self._some(request.service, said.id, attempt)
            key = key_for(self.settings.api_secret, request.role, request.name)
            answer = await self._ask("POST", address + request.path, json=request.body, headers={"Authorization": f"Bearer {key}"})
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                self.accepted.append(Acceptance(said))
                if fraction(self.seed, "looks", said.id) < LOOKS_SHARE:
                    await self._look(said, self._some(request.service, said.id, "look") + answer.headers["location"])
                return True
            if answer is not None and answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                self._saw("a valid request gets 202, or 503 when it cannot be taken now", request.path, answer)
                return False
            await asyncio.sleep(0.1)
        return False

    async def _look(self, said: Publication, url: str) -> None:
        """What was accepted is there, pending or applied."""
        answer = await self._ask("GET", url)
        if answer is not None and answer.status_code not in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}:
            self._saw(f"what got 202 ({type(said.message).__name__} {said.id}) is shown at its location, pending or applied", url, answer)

    def _saw(self, check: str, path: str, answer: httpx.Response) -> None:
        self.violations.append(Violation(check, {"path": path, "status": answer.status_code, "answer": answer.text[:500]}))

    async def _ask(self, method: str, url: str, **arguments: Any) -> httpx.Response | None:
        try:
            answer = await self._http.request(method, url, **arguments)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[str(answer.status_code)] += 1
        return answer

    def _some(self, service: str, *names: object) -> str:
        addresses = self.addresses(service)
        return addresses[int(fraction(self.seed, "instance", *names) * len(addresses))]


def _request(said: Publication) -> Request | None:
    """The message as an HTTP request, if there is a door for it that gives it the same source and id."""
    message = said.message
    if isinstance(said, Said) and (said.value is not None or said.expects):
        return None
    match message:
        case OrderPlaced():
            request, id_ = Request("orders", "/orders", Role.SHOP, "hostile", message.model_dump(mode="json")), message.order
        case OrderCancelRequested():
            body = message.model_dump(mode="json", exclude={"order"})
            path = f"/orders/{message.order}/cancellations"
            request, id_ = Request("orders", path, Role.SHOP, "hostile", body), f"{message.order}/{message.request}"
        case ShipmentConfirmed():
            body = message.model_dump(mode="json")
            request, id_ = Request("orders", "/shipments", Role.WAREHOUSE, "shipping", body), f"{message.order}/{message.shipment}"
        case GoodsReceived():
            request, id_ = Request("purchasing", "/receipts", Role.WAREHOUSE, "dock", message.model_dump(mode="json")), message.receipt
        case PurchaseOrderAcknowledged():
            body = message.model_dump(mode="json")
            request, id_ = Request("purchasing", "/acknowledgements", Role.SUPPLIER, message.supplier, body), message.acknowledgement
        case _:
            return None
    return request if (said.source, said.id) == (f"/clients/{request.role}/{request.name}", id_) else None


def _value(said: Publication) -> bytes:
    return said.value if isinstance(said, Said) and said.value is not None else encode(said.message)


def _binary(said: Publication) -> tuple[bytes, list[tuple[str, bytes]]]:
    return _value(said), cloud_event_headers(said.message.TYPE, said.source, said.id, said.time)


def _structured(said: Publication) -> tuple[bytes, list[tuple[str, bytes]]]:
    attributes = dict(_attributes(said)) | {"data": orjson.Fragment(_value(said))}
    return orjson.dumps(attributes), [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def _attributes(said: Publication) -> Iterator[tuple[str, str]]:
    for name, value in cloud_event_headers(said.message.TYPE, said.source, said.id, said.time):
        if name.startswith("ce_"):
            yield name.removeprefix("ce_"), value.decode()
