"""A fresh system with a clock of its own, for one run."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from deploy.local import driver, infrastructure, system
from deploy.local.home import Home
from deploy.local.sync import wait_for
from shared import topics
from shared.settings import ClockSource, Settings


@contextmanager
def fresh_system(home: Home, start: datetime, zone: str, *, keep: bool = False) -> Iterator[Settings]:
    """Deletes what an earlier run left in the home, starts everything with the clock at `start` (business time) and the warehouse
    in `zone`, and stops it afterwards unless `keep`. The home's data stay until the next run.

    On servers from elsewhere (KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL) each run has a namespace of its own.
    """
    system.reset(home)
    shared_servers = {infrastructure.KAFKA, infrastructure.DATABASE} & os.environ.keys()
    namespace = f"run_{secrets.token_hex(4)}" if shared_servers else ""
    try:
        addresses = infrastructure.start(home)
        settings = Settings(
            kafka_bootstrap_servers=addresses.kafka, database_url=addresses.database_url, namespace=namespace, clock=ClockSource.TOPIC
        )
        # The services wait for the first setting of the clock.
        wait_for(_set_first(settings, start))
        system.up(home, namespace, ClockSource.TOPIC.value, extra_env={"BACKORDER_TIME_ZONE": zone})
        yield system.settings(home)
    finally:
        if not keep:
            system.down(home)


async def _set_first(settings: Settings, start: datetime) -> None:
    await topics.create(settings)
    await driver.begin(settings, start)
