"""Kafka and PostgreSQL in containers, by testcontainers, where a Docker engine runs."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep

from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from deploy.local import kafka, postgres
from deploy.local.infrastructure import Addresses

WANTED = "BACKORDER_TEST_CONTAINERS"
KAFKA_IMAGE, POSTGRES_IMAGE = "BACKORDER_TEST_KAFKA_IMAGE", "BACKORDER_TEST_POSTGRES_IMAGE"
"""The images, if not the official ones."""
_SECONDS = 120


class ContainersError(Exception):
    """There is no engine that could run the containers, or it cannot run these."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the tests are to run on containers; if not, they run on the Kafka and PostgreSQL that come as packages."""
    return environment.get(WANTED, "") not in {"", "0"}


@contextmanager
def servers() -> Iterator[Addresses]:
    """Both servers, for as long as the body runs. Raises ContainersError."""
    host = _engine()
    try:
        with _kafka(host) as broker, _postgres() as database:
            yield Addresses(broker, database)
    except (DockerException, RuntimeError, TimeoutError) as error:
        raise ContainersError(f"the Docker engine could not run the servers' containers: {error}") from error


def _engine() -> str:
    """The host at which ports of containers are found."""
    try:
        client = DockerClient()
        client.client.ping()
        return client.host()
    except DockerException as error:
        raise ContainersError(
            f"{WANTED} is set, but no Docker engine answers: start one, name it by DOCKER_HOST, or unset {WANTED} "
            f"to run the same tests on the Kafka and PostgreSQL that come as packages ({error})"
        ) from error


@contextmanager
def _kafka(host: str) -> Iterator[str]:
    """One node. It has to know before it starts at which port of the host clients find it, where it does not find itself: it has
    another listener for that (the ends of transactions are sent to the leaders of partitions, even by the only node)."""
    port = _free_port()
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": "PLAINTEXT://0.0.0.0:9092,BROKER://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port},BROKER://127.0.0.1:9094",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "BROKER",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    container = DockerContainer(os.environ.get(KAFKA_IMAGE, f"apache/kafka:{kafka.VERSION}")).with_bind_ports(9092, port)
    for name, value in settings.items():
        container.with_env(f"KAFKA_{name}", value)
    with container:
        address = f"{host}:{port}"
        _wait(container, lambda: kafka.answers(address))
        yield address


@contextmanager
def _postgres() -> Iterator[str]:
    container = PostgresContainer(os.environ.get(POSTGRES_IMAGE, "postgres:18"), username="postgres", dbname="postgres", driver=None)
    with container.with_command("-c max_connections=200 -c fsync=off"):
        url = container.get_connection_url()
        _wait(container, lambda: postgres.answers(url))
        yield url


def _wait(container: DockerContainer, answers: Callable[[], bool]) -> None:
    deadline = monotonic() + _SECONDS
    while not answers():
        if monotonic() > deadline:
            out, err = container.get_logs()
            raise ContainersError(
                f"{container.image} does not answer after {_SECONDS} s; its log ends with:\n{(out + err).decode()[-1_500:]}"
            )
        sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
