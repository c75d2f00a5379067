"""What a transaction publishes: rows written with the state change. The relay (`shared.relay`) sends them afterwards."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from shared.codec import Record, encode, encode_items, new_id, partition_of
from shared.contracts.base import MAX_MESSAGE_BYTES, REGISTRY, ListedMessage
from shared.service import Connection, Send
from shared.settings import Settings

ITEMS_PER_RECORD = 500
_COLUMNS = ("topic", "partition", "key", "id", "type", "time", "causation", "actor", "value")


def records(sends: Iterable[Send], settings: Settings, now: datetime) -> Iterator[Record]:
    """The records of a transaction's messages: public ones one by one in their order, listed ones gathered per type and partition.

    Lists leave after the single ones, type by type in the order in which the contracts are declared.
    """
    lists: dict[tuple[str, int], list[ListedMessage]] = {}
    for send in sends:
        message = send.message
        partition = partition_of(message.key, settings.partitions)
        if isinstance(message, ListedMessage):
            lists.setdefault((message.TYPE, partition), []).append(message)
        else:
            topic = settings.topic(message.TOPIC.name)
            yield Record(topic, partition, message.key.encode(), new_id(), message.TYPE, now, send.cause, send.actor, encode(message))
    rank = {name: number for number, name in enumerate(REGISTRY)}
    for (type_, partition), items in sorted(lists.items(), key=lambda entry: (rank[entry[0][0]], entry[0][1])):
        contract = type(items[0])
        for start in range(0, len(items), ITEMS_PER_RECORD):
            for value in _values(contract, items[start : start + ITEMS_PER_RECORD]):
                yield Record(settings.topic(contract.TOPIC.name), partition, None, new_id(), type_, now, "", "", value)


def _values(contract: type[ListedMessage], items: Sequence[ListedMessage]) -> Iterator[bytes]:
    """The items as the data of one record, or of several where one would be larger than the broker takes."""
    value = encode_items(contract, items)
    if len(value) <= MAX_MESSAGE_BYTES:
        yield value
    else:
        middle = len(items) // 2
        yield from _values(contract, items[:middle])
        yield from _values(contract, items[middle:])


async def write(tx: Connection, rows: Sequence[Record]) -> None:
    """Puts the records into the outbox, numbered in their order."""
    if rows:
        await tx.copy_records_to_table(
            "outbox", schema_name="runtime", columns=_COLUMNS,
            records=[(r.topic, r.partition, r.key, r.id, r.type, r.time, r.causation, r.actor, r.value) for r in rows],
        )  # fmt: skip
