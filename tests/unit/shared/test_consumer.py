"""How every service subscribes: settings of FastStream and aiokafka that were seen to lose records when they are otherwise."""

from typing import Any, cast

import pytest
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faststream import AckPolicy

from deploy.local.settled import declared
from shared.consumer import ITEMS_PER_TRANSACTION, Consumer
from shared.service import Service
from shared.settings import SERVICES, Settings
from shared.transaction import Transactions


def consumer(name: str) -> tuple[Service[Any], Consumer]:
    settings = Settings(namespace="n", instance="7")
    service = declared(name, settings)
    return service, Consumer(service, settings, cast(Transactions, None), lambda: None)


@pytest.mark.parametrize("name", SERVICES)
def test_every_subscriber_goes_back_after_a_failure_and_replies_to_nobody(name: str) -> None:
    service, subscribed = consumer(name)
    [subscriber] = cast("list[Any]", subscribed.broker.subscribers)
    assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert subscriber._no_reply
    assert subscriber._connection_args["enable_auto_commit"] is False
    assert subscriber._connection_args["auto_offset_reset"] == "earliest"
    assert subscriber._connection_args["partition_assignment_strategy"] == (RangePartitionAssignor,)
    assert subscriber._connection_args["group_instance_id"] == f"{name}-7"
    assert subscriber.group_id == f"n.{name}"
    assert subscriber.topic_names == [f"n.{topic.name}" for topic in service.topics]
    assert subscriber.max_records == ITEMS_PER_TRANSACTION
    assert not subscribed.broker.config.broker_config.allow_auto_create_topics
