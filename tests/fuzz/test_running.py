"""The short form of `make fuzz`: every kind of bad message at every topic that a service reads, with everything running."""

from pathlib import Path

from deploy.local import infrastructure
from deploy.local.home import Home
from tests.fuzz.running import fuzz, started, topics_read

GROWTH_MIB = 200
"""Of a service's memory, at most: tens are its caches, and what it unpacks batches into."""


async def test_bad_messages_crash_nothing_and_hold_nobody_up(servers: infrastructure.Addresses, tmp_path: Path) -> None:
    async with started(Home(tmp_path)) as home:
        report = await fuzz(home, seed=1, count=500, topics=topics_read(), say=print)
    assert report.violations == []
    assert {name: topic.sent for name, topic in report.topics.items()} == dict.fromkeys(topics_read(), 500)
    assert all(topic.refused > 250 for topic in report.topics.values())
    assert report.loops == 8
    growth = {name: report.health.peak[name] - before for name, before in report.health.before.items()}
    assert max(growth.values()) < GROWTH_MIB, growth
