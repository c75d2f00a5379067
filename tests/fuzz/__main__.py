"""`python -m tests.fuzz`: bad messages at scale through a system of its own; ends with 1 if anything was not as it must be."""

import argparse
import asyncio
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from deploy.local import infrastructure
from deploy.local.home import Home
from tests.fuzz.running import Report, fuzz, started, topics_read


def main() -> int:
    """Runs, and shows or prints what came of it."""
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition(":")[2].strip())
    arguments.add_argument("--seed", type=int, default=1, help="the same seed sends the same messages (1)")
    arguments.add_argument("--per-topic", type=int, default=20_000, metavar="COUNT", help="messages per topic (20000)")
    arguments.add_argument("--topics", default=",".join(topics_read()), help="comma-separated; all that a service reads if left out")
    arguments.add_argument("--json", action="store_true", help="print the whole report as JSON")
    given = arguments.parse_args()
    topics = given.topics.split(",")
    if unknown := set(topics) - set(topics_read()):
        arguments.error(f"no service reads {', '.join(sorted(unknown))}; there are {', '.join(topics_read())}")
    say = partial(print, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="backorder-fuzz-") as folder:
        home = Home(Path(folder) / "home")
        try:
            report = asyncio.run(_run(home, given.seed, given.per_topic, topics, say))
        finally:
            infrastructure.delete(home)
    if given.json:
        print(json.dumps(report.json(), indent=2, ensure_ascii=False))
    else:
        _show(report)
    return 1 if report.violations else 0


async def _run(home: Home, seed: int, count: int, topics: list[str], say: "partial[None]") -> Report:
    async with started(home):
        return await fuzz(home, seed, count, topics, say)


def _show(report: Report) -> None:
    for name, topic in report.topics.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in topic.reasons.most_common())
        print(f"{name}: {topic.sent} sent, {topic.refused} refused ({reasons})")
    health = report.health
    print(f"{report.loops} orders went all the way meanwhile; {report.seconds} s")
    print(f"services asked {health.asked} times whether they live, slowest answer {health.slowest_ms} ms")
    for name, before in health.before.items():
        print(f"{name}: {before} MiB before, {health.peak[name]} at most, {health.after.get(name)} after")
    print(f"{len(report.violations)} violations, seed {report.seed}")
    for violation in report.violations:
        print(f"  {violation}")


if __name__ == "__main__":
    sys.exit(main())
