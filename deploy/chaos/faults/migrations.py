"""Migrations that die half-way."""

import asyncio
import os
import random
import signal
import sys

from deploy.chaos import victim
from deploy.chaos.fault import Fault
from deploy.chaos.faults.postgres import administrator
from deploy.chaos.healing import healing
from deploy.chaos.stage import Stage
from deploy.local import infrastructure, postgres
from shared import migrate
from shared.settings import SERVICES

_POINTS = (victim.BEFORE_COMMIT, victim.COMMIT_SENT, victim.AFTER_COMMIT)


async def migration_killed(stage: Stage, chance: random.Random) -> str:
    """A migration of a database of its own dies inside a file's transaction or between two files, and is begun anew."""
    service, point = chance.choice(SERVICES), chance.choice(_POINTS)
    times = chance.randint(1, len(migrate.files(migrate.folder(service))))
    settings = stage.settings.model_copy(update={"namespace": f"m{chance.randrange(10**6)}"})
    env = {
        infrastructure.DATABASE: settings.database_url,
        "BACKORDER_NAMESPACE": settings.namespace,
        victim.DIE_AT: f"{point}:{times}",
    }
    nowhere = str(stage.home.path / "no-home")
    async with stage.held(postgres.NAME):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", victim.MODULE, "deploy.local.cli", "migrate", service, "--home", nowhere, env={**os.environ, **env}
        )

        async def heal() -> None:
            if child.returncode is None:
                child.kill()
                await child.wait()
            await migrate.migrate(settings, service)
            left = await migrate.migrate(settings, service)
            async with administrator(stage) as connection:
                await connection.execute(f'DROP DATABASE "{settings.database(service)}" WITH (FORCE)')
            if left:
                raise AssertionError(f"migrations of {service} were not finished after a death at {point}:{times}: {left}")

        async with healing(heal):
            await child.wait()
    return f"{service}, migration at {point}:{times}{'' if child.returncode == -signal.SIGKILL else ', not reached'}"


FAULTS = {
    "migration_killed": Fault(migration_killed, seconds=4),
}
