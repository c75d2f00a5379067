"""Brokers that die, and what happens to consumer groups and partitions."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest, DeleteGroupsRequest, DescribeGroupsRequest

from deploy.chaos.fault import Fault, MissedError
from deploy.chaos.faults.elections import ElectLeaders
from deploy.chaos.healing import healing
from deploy.chaos.stage import BROKERS, Stage
from deploy.local import kafka
from shared.contracts import TOPICS
from shared.settings import SERVICES

_GROUPS = 0
"""The kind of coordinator."""
_EMPTY_SECONDS = 30.0
_TIMEOUT_MS = 5_000


@asynccontextmanager
async def asking(stage: Stage) -> AsyncIterator[AIOKafkaClient]:
    """A client that knows the cluster and may ask any broker anything."""
    client = AIOKafkaClient(bootstrap_servers=stage.settings.kafka_bootstrap_servers, request_timeout_ms=_TIMEOUT_MS)
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


def killed(which: Callable[[Stage, random.Random], Awaitable[list[str]]]) -> Callable[[Stage, random.Random], Awaitable[str]]:
    """A fault that kills brokers with SIGKILL, and starts them again a little later."""

    async def strike(stage: Stage, chance: random.Random) -> str:
        names = await which(stage, chance)

        async def heal() -> None:
            for name in names:
                await stage.launch(name)

        async with stage.held(*names), healing(heal):
            for name in names:
                await stage.kill(name)
            await stage.lasts(chance, 2, 15)
        return " and ".join(names)

    return strike


async def any_broker(_stage: Stage, chance: random.Random) -> list[str]:
    """One by chance."""
    return [chance.choice(BROKERS)]


async def any_two(_stage: Stage, chance: random.Random) -> list[str]:
    """Two by chance: nothing can be acknowledged, nor decided."""
    return sorted(chance.sample(BROKERS, k=2))


async def coordinator(stage: Stage, chance: random.Random) -> list[str]:
    """The one that coordinates a service's consumer group."""
    group = stage.settings.topic(chance.choice(SERVICES))
    async with asking(stage) as client:
        return [f"{kafka.NAME}-{await client.coordinator_lookup(_GROUPS, group)}"]


async def controller(stage: Stage, _chance: random.Random) -> list[str]:
    """The one that leads the quorum, as each has written it down last: clients are told any broker."""
    states = []
    for name in BROKERS:
        file = kafka.data(stage.home, name) / "__cluster_metadata-0" / "quorum-state"
        states.append(json.loads(file.read_bytes()))
    latest = max(states, key=lambda state: (state["leaderEpoch"], state["leaderId"]))
    if latest["leaderId"] < 0:
        raise MissedError("the quorum has no leader at the moment")
    return [f"{kafka.NAME}-{latest['leaderId']}"]


@asynccontextmanager
async def _emptied(stage: Stage, service: str) -> AsyncIterator[AIOKafkaClient]:
    """Stops a service until its group has no member left, as an administrator must who changes it; starts it at the end."""
    names = stage.names(service)
    group = stage.settings.topic(service)

    async def heal() -> None:
        for name in names:
            await stage.launch(name)

    async with stage.held(*names), healing(heal), asking(stage) as client:
        for name in names:
            await stage.stop(name)

        async def empty() -> bool:
            answer = await client.send(await client.coordinator_lookup(_GROUPS, group), DescribeGroupsRequest([group]))
            _error, _group, state, *_ = answer.groups[0]
            return state in {"Empty", "Dead"}

        if not await stage.becomes(empty, within=_EMPTY_SECONDS):  # static members stay until their session is over
            raise MissedError(f"group {group} did not become empty")
        yield client


async def group_deleted(stage: Stage, chance: random.Random) -> str:
    """A service's consumer group is deleted, with all its offsets."""
    service = chance.choice(SERVICES)
    group = stage.settings.topic(service)
    async with _emptied(stage, service) as client:
        answer = await client.send(await client.coordinator_lookup(_GROUPS, group), DeleteGroupsRequest([group]))
        [(_group, code)] = answer.results
        if code:
            raise for_code(code)(f"group {group} could not be deleted")
    return group


async def offsets_reset(stage: Stage, chance: random.Random) -> str:
    """A service's consumer group is set back to the beginning of every topic."""
    service = chance.choice(SERVICES)
    group = stage.settings.topic(service)
    async with _emptied(stage, service):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=stage.settings.kafka_bootstrap_servers, group_id=group, enable_auto_commit=False
        )  # fmt: skip
        await consumer.start()
        try:
            names = [stage.settings.topic(topic.name) for topic in TOPICS]
            places = [TopicPartition(name, number) for name in names for number in range(stage.settings.partitions)]
            consumer.assign(places)
            await consumer.commit(await consumer.beginning_offsets(places))
        finally:
            await consumer.stop()
    return group


async def partitions_reelected(stage: Stage, chance: random.Random) -> str:
    """Every partition of a topic gets another preferred leader, and elects it."""
    topic = stage.settings.topic(chance.choice(TOPICS).name)
    partitions = list(range(stage.settings.partitions))
    replicas = {number: chance.sample(range(1, len(BROKERS) + 1), k=len(BROKERS)) for number in partitions}
    async with asking(stage) as client:
        node = client.get_random_node()
        wanted: list[Any] = [(topic, [(number, nodes, {}) for number, nodes in replicas.items()], {})]
        answer = await client.send(node, AlterPartitionReassignmentsRequest(_TIMEOUT_MS, wanted, {}))
        if answer.error_code:
            raise for_code(answer.error_code)(f"{topic} could not be reassigned")
        await client.send(node, ElectLeaders(topic, partitions, _TIMEOUT_MS))
    return f"{len(partitions)} partitions of {topic}"


FAULTS = {
    "broker_killed": Fault(killed(any_broker), seconds=9),
    "coordinator_killed": Fault(killed(coordinator), seconds=9),
    "controller_killed": Fault(killed(controller), seconds=9),
    "two_brokers_down": Fault(killed(any_two), seconds=9),
    "group_deleted": Fault(group_deleted, seconds=14),
    "offsets_reset": Fault(offsets_reset, seconds=14),
    "partitions_reelected": Fault(partitions_reelected, seconds=0.5),
}
