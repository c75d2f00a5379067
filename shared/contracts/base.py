"""What a message is: its type name, its topic, its key, and whether it travels alone or in lists.

Three kinds of message, told apart by name: *facts* (`OrderPlaced`) are applied once, by id; *levels* (`DemandSet`) carry
the whole current state and a version, the highest version wins; *requests* (`OrderCancelRequested`) may be refused.
Contracts only grow by optional fields; a breaking change is a new version of the type.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, StringConstraints
from pydantic_core import PydanticCustomError
from pydantic_extra_types.currency_code import ISO4217

JsonObject = dict[str, Any]

# Whatever a contract lets through can be stored and calculated with: these bounds lie well within those of the columns
# (tests/fuzz sends what lies at their edges), of Python's dates in any time zone, and of JSON readers that know doubles only.
MAX_QUANTITY = 1_000_000
MAX_LINES = 1_000
MAX_ITEMS = 1_000
"""Items of one list record; our own services send half as many at most."""
MAX_TOTAL = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact. As microseconds since 1970, which versions are, it is the year 2255."""
MAX_MESSAGE_BYTES = 1_048_576 - 16_384
"""Room is left for headers, so that Kafka's default `max.message.bytes` of 1 MiB has nothing to refuse."""
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2099, 12, 31)
"""Messages are about days between these. The last one stands for "nobody knows when": no promise is made on it."""
FIRST_INSTANT, LAST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def _written_instant(value: Any) -> Any:
    """Numbers, which pydantic would take for seconds since 1970, are refused: nobody can see which unit was meant."""
    if isinstance(value, datetime) or (isinstance(value, str) and value[4:5] == "-"):
        return value
    raise PydanticCustomError("instant_form", "Input should be a date and time with its offset from UTC, such as 2026-11-22T10:00:00Z")


def _written_day(value: Any) -> Any:
    """Also turns 9999-12-31, by which many systems say that nobody knows, into the last day."""
    if value == "9999-12-31":
        return LAST_DAY
    if type(value) is date or (isinstance(value, str) and len(value) == 10 and value[4] == "-"):
        return value
    raise PydanticCustomError("day_form", "Input should be a day such as 2026-11-22")


def _range(first: date, last: date) -> JsonObject:
    """The bounds of days or instants as a schema says them."""
    return {"formatMinimum": first.isoformat(), "formatMaximum": last.isoformat()}


PATTERNS: dict[str, str] = {}
"""Regular expression → what it asks for, in words."""


def pattern(expression: str, words: str) -> str:
    """A regular expression that says of itself what it asks for: "Input should be <words>"."""
    PATTERNS[expression] = words
    return expression


_ID = pattern(r"^[^\x00-\x1f/]+$", "an id without slashes and control characters")
_TEXT = pattern(r"^[^\x00]*$", "a text without null characters")

Identifier = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=_ID)]
"""An id given by whoever owns the thing: order, SKU, supplier, receipt. No control characters, no slash (it stands in URLs)."""
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_QUANTITY)]
"""Whole units of one line, zero allowed."""
Total = Annotated[int, Field(strict=True, ge=0, le=MAX_TOTAL)]
"""Whole units of one SKU, over all lines."""
LineNumber = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500, pattern=_TEXT)]
Currency = Annotated[str, GetPydanticSchema(lambda _source, handler: handler(ISO4217))]
"""A currency code of ISO 4217."""
Instant = Annotated[
    AwareDatetime,
    Field(ge=FIRST_INSTANT, le=LAST_INSTANT, json_schema_extra=_range(FIRST_INSTANT, LAST_INSTANT)),
    BeforeValidator(_written_instant),
]
"""A point in time, written with its offset."""
Day = Annotated[date, Field(ge=FIRST_DAY, le=LAST_DAY, json_schema_extra=_range(FIRST_DAY, LAST_DAY)), BeforeValidator(_written_day)]
"""A calendar day, in the warehouse's zone where nothing else is said."""
Version = Annotated[int, Field(strict=True, ge=0, le=MAX_TOTAL)]


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

    causation: Annotated[str, StringConstraints(max_length=320, pattern=_TEXT)] = ""
    """Id of the message that caused it, `#` and its index there if it was an item of a list."""


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
