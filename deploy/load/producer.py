"""The shop that orders, in a process of its own: `python -m deploy.load.producer --home HOME --first 1 --lines 3000`.

It says `ready`, waits for a line on stdin, and orders at a steady rate, whatever the system makes of it. Twice a second it says up to
which number the broker has acknowledged the orders.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from time import monotonic

from deploy.load.demand import lines_of, said
from deploy.local import system
from deploy.local.home import Home
from deploy.local.publisher import Publisher
from shared import clock
from shared.settings import Settings

TICK_SECONDS = 0.02
TOLD_SECONDS = 0.5
AT_ONCE = 500
"""Orders handed over before their acknowledgements are awaited."""


async def order(settings: Settings, first: int, lines: int, lines_per_second: float) -> None:
    """Orders so many lines, rounded up to whole orders, numbered from `first` on; no rate (0) = as fast as the broker takes them."""
    async with clock.started(settings) as now, Publisher(settings) as publisher:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        number, ordered, began, told = first, 0, monotonic(), 0.0
        while ordered < lines:
            elapsed = monotonic() - began
            due = min(lines, lines_per_second * elapsed) if lines_per_second else lines
            at, until = now(), number + AT_ONCE
            while ordered < due and number < until:
                for publication in said(number, at):
                    await publisher.send(publication)
                ordered += lines_of(number)
                number += 1
            await publisher.flush()
            if elapsed >= told + TOLD_SECONDS or ordered >= lines:
                told = elapsed
                print(number, flush=True)
            if number < until:
                await asyncio.sleep(TICK_SECONDS)


def main() -> None:
    """Order what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--lines", type=int, required=True)
    parser.add_argument("--lines-per-second", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(order(system.settings(Home(given.home)), given.first, given.lines, given.lines_per_second))


if __name__ == "__main__":
    main()
