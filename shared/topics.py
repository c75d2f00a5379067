"""Creates a system's topics and checks that they are what the services count on."""

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from shared.contracts import TOPICS
from shared.contracts.base import Topic
from shared.contracts.system import SYSTEM_CLOCK
from shared.settings import Settings

RETENTION_DAYS = 7
"""How long the topics keep their records; the inbox remembers a day longer, so that no repeat outlives its id."""


class TopicError(Exception):
    """A topic could not be made, is missing, or has another number of partitions than the system was set up with."""


def _wanted(topic: Topic, settings: Settings) -> NewTopic:
    config = {
        "retention.ms": str(RETENTION_DAYS * 86_400_000),
        # What is acknowledged survives the loss of a broker, and one that is away does not stop the others.
        "min.insync.replicas": str(max(1, settings.replication - 1)),
    }
    if topic.log_append_time:
        config["message.timestamp.type"] = "LogAppendTime"
    partitions = 1 if topic is SYSTEM_CLOCK else settings.partitions
    return NewTopic(settings.topic(topic.name), partitions, settings.replication, topic_configs=config)


async def create(settings: Settings) -> list[str]:
    """Creates the topics that are missing; answers their names. Raises TopicError for any that the broker refuses."""
    wanted = [_wanted(topic, settings) for topic in (*TOPICS, SYSTEM_CLOCK)]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await admin.start()
        answer = await admin.create_topics(wanted)
    finally:
        await admin.close()
    made = []
    for name, code, *detail in answer.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            continue
        if code:
            raise TopicError(f"topic {name!r} could not be created: {error.__name__} {' '.join(str(d) for d in detail if d)}".rstrip())
        made.append(name)
    return made


async def check(settings: Settings) -> None:
    """Raises TopicError unless every topic is there with its number of partitions."""
    client = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await client.start()
        for topic in (*TOPICS, SYSTEM_CLOCK):
            wanted = _wanted(topic, settings)
            try:
                found = len(await client.partitions_for(wanted.name))
            except Exception as error:
                raise TopicError(f"topic {wanted.name!r} is not there; 'backorder topics create' makes it") from error
            if found != wanted.num_partitions:
                raise TopicError(
                    f"topic {wanted.name!r} has {found} partitions, the system was set up with {wanted.num_partitions}: "
                    "records of one key would be spread over several partitions"
                )
    finally:
        await client.stop()
