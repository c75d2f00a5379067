"""People and probes that ask the services by HTTP, in a process of its own: `python -m deploy.load.reader --home HOME`.

Each question is asked when it is its turn, however long the others take, and timed. Lines on stdin say up to which number there are
orders; when stdin ends, it writes all that it found as one JSON object.
"""

import argparse
import asyncio
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from time import monotonic

import httpx

from deploy.load.demand import SKUS, order_id, sku
from deploy.load.result import Answers, Reading
from deploy.local import system
from deploy.local.home import Home

READS_PER_SECOND = 15
"""Of orders, SKUs and queues together."""
PROBES_PER_SECOND = 5
"""Of liveness and readiness, every instance in turn."""
PATIENCE_SECONDS = 10.0
READS = {"order": "orders", "sku": "inventory", "queue": "inventory"}
"""What is read → the service that is asked."""


class Orders:
    """Up to which number orders exist."""

    def __init__(self) -> None:
        self.until = 1


def reads(instances: dict[str, list[str]], orders: Orders) -> Iterator[tuple[str, str]]:
    """What is asked, one after the other: its kind and its address. `instances` = service → addresses."""
    dice = random.Random(3)  # noqa: S311  (the same questions every time)
    for number, kind in zip(count(), cycle(READS), strict=False):
        addresses = instances[READS[kind]]
        address = addresses[number // len(READS) % len(addresses)]
        article = sku(dice.randrange(SKUS))
        path = {"order": f"/orders/{order_id(dice.randrange(orders.until))}", "sku": f"/skus/{article}", "queue": f"/skus/{article}/queue"}
        yield kind, address + path[kind]


def probes(instances: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Every instance in turn, whether it lives, then whether it is ready."""
    every = [address for addresses in instances.values() for address in addresses]
    return cycle([(kind, f"{address}/health/{kind}") for kind in ("live", "ready") for address in every])


async def ask(client: httpx.AsyncClient, questions: Iterator[tuple[str, str]], per_second: float, found: dict[str, Answers]) -> None:
    """Asks at this rate until cancelled."""
    async with asyncio.TaskGroup() as group:
        began = monotonic()
        for number, (kind, url) in enumerate(questions):
            await asyncio.sleep(max(0.0, began + number / per_second - monotonic()))
            group.create_task(_one(client, url, found[kind]))


async def _one(client: httpx.AsyncClient, url: str, answers: Answers) -> None:
    began = monotonic()
    try:
        status = str((await client.get(url)).status_code)
    except httpx.HTTPError as error:
        status = type(error).__name__
    answers.milliseconds.append(round(1000 * (monotonic() - began), 1))
    answers.statuses[status] = answers.statuses.get(status, 0) + 1


async def read(home: Home) -> dict[str, Answers]:
    """Asks until stdin ends."""
    instances = defaultdict(list)
    for process in system.status(home).processes:
        if process.address.startswith("http://"):
            instances[process.name.partition("-")[0]].append(process.address)
    found: dict[str, Answers] = defaultdict(Answers)
    orders = Orders()
    print("ready", flush=True)
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        asking = [
            asyncio.create_task(ask(client, reads(instances, orders), READS_PER_SECOND, found)),
            asyncio.create_task(ask(client, probes(instances), PROBES_PER_SECOND, found)),
        ]
        while line := await asyncio.to_thread(sys.stdin.readline):
            orders.until = int(line)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return found


def main() -> None:
    """Ask, then say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    found = asyncio.run(read(Home(parser.parse_args().home)))
    print(Reading(found).model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
