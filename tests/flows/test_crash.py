"""Crash proof: services die by SIGKILL at random moments, everything from outside comes twice, and nothing is lost or done twice.

Two runs of the same 2,000 lines, one undisturbed. What was ordered, shipped and cancelled per line must be equal; who waited and
how purchases were grouped may differ, because partitions interleave.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.local import assortment, driver, from_log, infrastructure, retail, system
from deploy.local.audit import audit
from deploy.local.home import Home
from deploy.local.mailbox import read_mails
from deploy.local.publisher import Publication, Publisher
from deploy.local.story import Run, Story, play
from deploy.local.summary import Tally
from deploy.local.suppliers import Rates
from deploy.local.sync import wait_for
from shared import topics
from shared.contracts.commerce import OrderCancelRequested
from shared.settings import ClockSource, Settings

EXCERPT = Path(driver.__file__).parent / "data" / "online-retail" / "excerpt.csv"
COPIES = 4
ENVIRONMENT = {"BACKORDER_TIME_ZONE": retail.ZONE, "BACKORDER_PARTITIONS": "4"}
INSTANCES = {"orders": 1, "inventory": 2, "purchasing": 1, "notifier": 1}
VICTIMS = ["orders-1", "inventory-1", "inventory-2", "purchasing-1", "notifier-1"] * 2


def a_story() -> Story:
    """The excerpt four times over, as other invoices of other customers: some 2,000 lines."""
    invoices = retail.invoices(retail.read(EXCERPT))
    copies = {}
    for rows in invoices.values():
        for copy in range(COPIES):
            mine = [row._replace(invoice=f"{row.invoice}{copy}", customer=row.customer and f"{row.customer}{copy}") for row in rows]
            copies[mine[0].invoice] = mine
    rates = Rates(slip=0.1, reject=0.05, short=0.1, twice=0.1, seed=7)
    terms = assortment.Terms(stock=(2, 3, 5), packs=(1, 6, 12), lead_days=(3, 8), suppliers=6, rates=rates)
    return assortment.story(retail.sales(copies), terms)


@contextmanager
def stage(home: Home, servers: infrastructure.Addresses, story: Story) -> Iterator[Settings]:
    """A fresh system with its own clock, inventory as two instances."""
    namespace = f"c{secrets.token_hex(3)}"
    settings = Settings(
        kafka_bootstrap_servers=servers.kafka, database_url=servers.database_url, namespace=namespace, clock=ClockSource.TOPIC, partitions=4
    )
    wait_for(topics.create(settings))
    wait_for(driver.begin(settings, story.start))
    system.up(home, namespace, "topic", INSTANCES, ENVIRONMENT)
    try:
        yield system.settings(home)
    finally:
        system.down(home)


class Twice(Publisher):
    """Says everything twice, as upstream systems do after a time-out."""

    async def send(self, said: Publication) -> None:
        await super().send(said)
        await super().send(said)


async def nemesis(home: Home, seed: int, killed: Counter[str]) -> None:
    """Kills each service in turn, at random moments, and starts it again."""
    chance = random.Random(seed)
    victims = VICTIMS.copy()
    chance.shuffle(victims)
    for victim in victims:
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        await asyncio.to_thread(system.kill, home, victim)
        killed[victim] += 1
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await asyncio.to_thread(system.start_service, home, victim)


async def disturbed(home: Home, settings: Settings, story: Story, tally: Tally, seed: int) -> tuple[Run, Counter[str]]:
    """Plays the story while services die; slow enough that they die in the midst of it."""
    killed: Counter[str] = Counter()
    trouble = asyncio.create_task(nemesis(home, seed, killed))
    run = await play(settings, story, tally, days_per_second=1.0, ahead=timedelta(hours=12))
    assert trouble.done(), f"the story ended after {dict(killed)}: too early to prove anything"
    await trouble
    return run, killed


@pytest.mark.timeout(500)
def test_nothing_is_lost_or_done_twice_whoever_dies(
    servers: infrastructure.Addresses, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    story = a_story()
    assert sum(len(getattr(event.message, "lines", ())) for event in story.events) >= 2_000
    calm, stormy = Tally(), Tally()

    home = Home(tmp_path_factory.mktemp("calm"))
    with stage(home, servers, story) as settings:
        expected = asyncio.run(play(settings, story, calm))
    assert expected.audit.ok, expected.audit.violations()

    monkeypatch.setattr(driver, "Publisher", Twice)
    home = Home(tmp_path_factory.mktemp("stormy"))
    with stage(home, servers, story) as settings:
        run, killed = asyncio.run(disturbed(home, settings, story, stormy, seed))
        assert all(killed[victim] >= 2 for victim in VICTIMS), killed
        assert run.audit.ok, run.audit.violations()
        # Once more on its own: what the run ended with is still true when nobody drives any more.
        assert asyncio.run(audit(settings, wait=30)).ok
        for name, check in asyncio.run(from_log.checks(settings)).items():
            assert check.checked, name
            assert check.violations == [], name

    # A cancellation may come before or after the parcel: of those lines the split may differ, never the sum.
    racing = {(event.message.order, event.message.line) for event in story.events if isinstance(event.message, OrderCancelRequested)}
    assert stormy.amounts.keys() == calm.amounts.keys()
    for line, amounts in calm.amounts.items():
        ours = stormy.amounts[line]
        assert ours.ordered == amounts.ordered, line
        assert ours.shipped + ours.cancelled == ours.ordered, line
        if line not in racing:
            assert (ours.shipped, ours.cancelled) == (amounts.shipped, amounts.cancelled), line

    # SMTP has no transactions: a kill between its answer and our commit repeats a mail, under the same Message-ID.
    mails = read_mails(home.mail)
    repeats = sum(mail.copies - 1 for mail in mails)
    print(f"{sum(killed.values())} kills, {len(mails)} mails, {repeats} of them repeated at a kill of the notifier")
    assert repeats <= 50 * killed["notifier-1"]
