"""The local Kafka and PostgreSQL: they keep what they were given through stops, power cuts and lost ports."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from jgo.env import EnvironmentBuilder

from deploy.local import infrastructure, jars, kafka, postgres, processes
from deploy.local.errors import UserError
from deploy.local.home import Home
from shared.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv(infrastructure.KAFKA, raising=False)
    monkeypatch.delenv(infrastructure.DATABASE, raising=False)
    home = Home(tmp_path / "home")
    yield home
    infrastructure.delete(home)


async def test_what_was_acknowledged_survives_stop_and_power_cut(home: Home) -> None:
    addresses = infrastructure.start(home)
    pids = pids_of(home)
    assert infrastructure.start(home) == addresses
    assert pids_of(home) == pids, "started again although it ran"
    assert await show(addresses.database_url, "fsync", "synchronous_commit") == ["on", "on"]
    await create_topic(addresses.kafka)
    await write(addresses, "before the stop")

    infrastructure.stop(home)
    assert processes.running(home) == []
    assert infrastructure.start(home) == addresses
    await write(addresses, "before the power cut")

    for name in (kafka.NAME, postgres.NAME):
        processes.kill(home, name)
    assert processes.running(home) == []
    assert infrastructure.start(home) == addresses

    assert await read_topic(addresses.kafka, count=2) == ["before the stop", "before the power cut"]
    assert await read_table(addresses.database_url) == ["before the stop", "before the power cut"]


async def test_a_port_taken_by_others_is_replaced_and_the_data_stay(home: Home) -> None:
    before = infrastructure.start(home)
    await create_topic(before.kafka)
    await write(before, "kept")
    infrastructure.stop(home)

    with socket.create_server(("127.0.0.1", home.port(kafka.NAME))), socket.create_server(("127.0.0.1", home.port(postgres.NAME))):
        after = infrastructure.start(home)
        assert after.kafka != before.kafka
        assert after.database_url != before.database_url
        assert await read_topic(after.kafka, count=1) == ["kept"]
        assert await read_table(after.database_url) == ["kept"]


def test_servers_named_by_the_environment_are_used_instead(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(infrastructure.KAFKA, "broker.example:9092")
    monkeypatch.setenv(infrastructure.DATABASE, "postgresql://server.example/postgres")
    assert infrastructure.start(home) == infrastructure.Addresses("broker.example:9092", "postgresql://server.example/postgres")
    assert processes.running(home) == []


def test_a_pid_that_was_given_to_another_process_is_nobody(home: Home) -> None:
    home.create()
    record = {"pid": os.getpid(), "started": 1.0, "command": ["kafka"]}
    (home.pids / "kafka.json").write_text(json.dumps(record))
    assert processes.pid_of(home, "kafka") is None
    assert processes.stop(home, "kafka")


def test_a_server_that_ends_while_starting_says_why(home: Home) -> None:
    processes.start(home, "clumsy", ["sh", "-c", "echo no space left; exit 1"])
    with pytest.raises(UserError, match=r"(?s)clumsy ended while starting.*no space left"):
        processes.wait_until(home, "clumsy", lambda: False, timeout=10)


def test_a_process_that_will_not_stop_is_killed(home: Home) -> None:
    processes.start(home, "stubborn", ["sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 0.05; done"])
    processes.wait_until(home, "stubborn", lambda: "deaf" in processes.tail(home, "stubborn"), timeout=10)
    assert not processes.stop(home, "stubborn", timeout=0.5)
    assert processes.running(home) == []


def test_a_jar_with_another_hash_is_refused(tmp_path: Path) -> None:
    wanted = jars.JarLock(endpoint="org.example:thing:1.0", sha256={"org.example:thing:1.0": hashlib.sha256(b"the real one").hexdigest()})
    jar = tmp_path / "thing-1.0.jar"
    jar.write_bytes(b"the real one")
    assert jars.resolve(wanted, tmp_path) == [jar]
    jar.write_bytes(b"another one")
    with pytest.raises(UserError, match=r"thing-1\.0\.jar is not the jar that jars\.toml names"):
        jars.resolve(wanted, tmp_path)


def test_a_failing_download_says_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def unreachable(_builder: object, endpoint: str) -> None:
        attempts.append(endpoint)
        raise ConnectionError("no route")

    monkeypatch.setattr(EnvironmentBuilder, "from_endpoint", unreachable)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wanted = jars.JarLock(endpoint="org.example:thing:1.0", sha256={"org.example:thing:1.0": "00"})
    with pytest.raises(UserError, match=r"could not download org\.example:thing:1\.0 .*no route"):
        jars.resolve(wanted, tmp_path)
    assert len(attempts) == 4


async def test_a_test_has_topics_and_databases_of_its_own(settings: Settings) -> None:
    assert kafka.answers(settings.kafka_bootstrap_servers)
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute(f'CREATE DATABASE "{settings.database("orders")}"')
    finally:
        await connection.close()


def pids_of(home: Home) -> list[int | None]:
    return [processes.pid_of(home, name) for name in (kafka.NAME, postgres.NAME)]


async def show(url: str, *names: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetchval(f"SHOW {name}") for name in names]
    finally:
        await connection.close()


async def create_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("words", num_partitions=1, replication_factor=1)])
    await admin.close()


async def write(addresses: infrastructure.Addresses, word: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=addresses.kafka, acks="all")
    await producer.start()
    await producer.send_and_wait("words", word.encode())
    await producer.stop()
    connection = await asyncpg.connect(addresses.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS words (at timestamptz DEFAULT clock_timestamp(), word text)")
    await connection.execute("INSERT INTO words (word) VALUES ($1)", word)
    await connection.close()


async def read_topic(bootstrap: str, *, count: int) -> list[str]:
    consumer = AIOKafkaConsumer("words", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [(await consumer.getone()).value.decode() for _ in range(count)]
    finally:
        await consumer.stop()


async def read_table(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["word"] for row in await connection.fetch("SELECT word FROM words ORDER BY at")]
    finally:
        await connection.close()
