"""Kafka and PostgreSQL for one home: our own, or those that the environment names."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deploy.local import kafka, postgres
from deploy.local.home import Home

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"
DATABASE = "DATABASE_URL"


@dataclass(frozen=True)
class Addresses:
    """Where broker and database server answer."""

    kafka: str
    database_url: str


def start(home: Home, brokers: int | None = None) -> Addresses:
    """Start what the environment does not name, both at once; return when both answer. `brokers` of our own Kafka: as before, at
    first one."""
    with home.lock(), ThreadPoolExecutor(2) as pool:
        home.state()
        broker = pool.submit(lambda: os.environ.get(KAFKA) or kafka.start(home, brokers))
        database = pool.submit(lambda: os.environ.get(DATABASE) or postgres.start(home))
        return Addresses(broker.result(), database.result())


def stop(home: Home) -> None:
    """Stop what runs here; data stay."""
    with home.lock(), ThreadPoolExecutor(2) as pool:
        for stopping in (pool.submit(kafka.stop, home), pool.submit(postgres.stop, home)):
            stopping.result()


def delete(home: Home) -> None:
    """Stop, and delete all data of this home."""
    stop(home)
    postgres.delete(home)
    home.delete()
