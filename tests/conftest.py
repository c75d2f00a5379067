"""What every test may ask for: servers, and a system's name and settings that no other test shares."""

import os
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local import infrastructure
from shared.settings import Settings
from tests import containers, infra


def pytest_configure(config: pytest.Config) -> None:
    if _is_worker(config):
        return
    try:
        infra.begin()
    except containers.ContainersError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        infra.end()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def servers() -> infrastructure.Addresses:
    """Kafka and PostgreSQL for this run; processes that a test starts find them in their environment."""
    addresses = infra.addresses()
    os.environ[infrastructure.KAFKA] = addresses.kafka
    os.environ[infrastructure.DATABASE] = addresses.database_url
    return addresses


@pytest.fixture
def kafka_bootstrap(servers: infrastructure.Addresses) -> str:
    """The broker's address."""
    return servers.kafka


@pytest.fixture
def database_url(servers: infrastructure.Addresses) -> str:
    """The database server's URL, with the right to create databases."""
    return servers.database_url


@pytest.fixture
def namespace() -> str:
    """A short name that is this test's alone."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def settings(servers: infrastructure.Addresses, namespace: str) -> AsyncIterator[Settings]:
    """Settings of a system of this test's own, whose topics and databases go when the test ends."""
    yield Settings(kafka_bootstrap_servers=servers.kafka, database_url=servers.database_url, namespace=namespace, partitions=4)
    await _delete_topics(servers.kafka, f"{namespace}.")
    await _drop_databases(servers.database_url, f"backorder_{namespace}_")


async def _delete_topics(bootstrap: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if mine := [topic for topic in await admin.list_topics() if topic.startswith(prefix)]:
            await admin.delete_topics(mine)
    finally:
        await admin.close()


async def _drop_databases(url: str, prefix: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()
