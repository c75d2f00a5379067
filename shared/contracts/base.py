"""What a message is: its type name, its topic, its key, and whether it travels alone or in lists.

Three kinds of message, told apart by name: *facts* (`OrderPlaced`) are applied once, by id; *levels* (`DemandSet`) carry
the whole current state and a version, the highest version wins; *requests* (`OrderCancelRequested`) may be refused.
Contracts only grow by optional fields; a breaking change is a new version of the type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, GetPydanticSchema, StringConstraints
from pydantic_extra_types.currency_code import ISO4217

MAX_QUANTITY = 1_000_000
MAX_LINES = 1_000
MAX_MESSAGE_BYTES = 1_048_576 - 16_384
"""Room is left for headers, so that Kafka's default `max.message.bytes` of 1 MiB has nothing to refuse."""

Identifier = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f/]+$")]
"""An id given by whoever owns the thing: order, SKU, supplier, receipt. No control characters, no slash (it stands in URLs)."""
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)]
Count = Annotated[int, Field(strict=True, ge=0)]
"""Whole units, zero allowed."""
LineNumber = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500, pattern=r"^[^\x00]*$")]
Currency = Annotated[str, GetPydanticSchema(lambda _source, handler: handler(ISO4217))]
"""A currency code of ISO 4217."""
Instant = AwareDatetime
"""A point in time, written with its offset; UTC inside."""
Version = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic. `key` says what stays in order; `public` topics are written or read by others."""

    name: str
    key: str
    public: bool = False
    log_append_time: bool = False


class Contract(BaseModel):
    """Base of every message and of the parts inside one. Unknown fields are ignored, so that a contract can grow."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Message(Contract):
    """A payload with a type of its own on one topic."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[Topic]
    KEY: ClassVar[str]
    LEVEL: ClassVar[tuple[str, ...]] = ()
    LISTED: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """The value whose messages stay in order; the record's key, or what its partition is computed from."""
        return str(getattr(self, self.KEY))

    @property
    def level(self) -> str | None:
        """What this is the whole state of (an order's line, a SKU), or None: only a level of the same thing takes its place."""
        return "/".join(str(getattr(self, field)) for field in self.LEVEL) or None


class ListedMessage(Message):
    """An item of an internal record `{items: […]}`: one record per batch and partition, each item with its own cause."""

    causation: str = ""


MessageType = type[Message]
M = TypeVar("M", bound=Message)

REGISTRY: dict[str, MessageType] = {}
"""Type name → contract, in the order of declaration: lists of one topic leave in this order."""


def contract(topic: Topic, *, key: str, version: int = 1, level: tuple[str, ...] = ()) -> Callable[[type[M]], type[M]]:
    """Registers a message under `backorder.<owner>.<Name>.v<version>`; the owner is its module's name.

    `level` names the fields that say what a level is the level of.
    """

    def register(cls: type[M]) -> type[M]:
        owner = cls.__module__.rsplit(".", 1)[-1]
        cls.TYPE = f"backorder.{owner}.{cls.__name__}.v{version}"
        cls.TOPIC, cls.KEY, cls.LEVEL, cls.LISTED = topic, key, level, issubclass(cls, ListedMessage)
        REGISTRY[cls.TYPE] = cls
        return cls

    return register


JsonObject = dict[str, Any]
