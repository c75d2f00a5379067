"""Reads what stands in topics, from the beginning to the end, once."""

from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition


async def records(kafka: str, places: Collection[TopicPartition]) -> list[ConsumerRecord]:
    """Everything that stands in these partitions now, each partition in its order. Raises KafkaError when the broker does not answer."""
    # Positions are left to the reset policy: who seeks to the beginning while the client is still finding the end may be overtaken by it.
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = {place: end for place, end in (await consumer.end_offsets(list(places))).items() if end}
        consumer.assign(list(ends))
        found: list[ConsumerRecord] = []
        left = list(ends)
        while left:
            for place, batch in (await consumer.getmany(*left, timeout_ms=500)).items():
                found += (record for record in batch if record.offset < ends[place])
            # By position, not by the last record: a log may end with the marker of a transaction.
            left = [place for place in left if await consumer.position(place) < ends[place]]
        return found
    finally:
        await consumer.stop()
