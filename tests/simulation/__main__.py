"""Many seeds: `python -m tests.simulation --seeds 10000 --jobs 2`; or one with all its steps: `… --from 80 --seeds 1 --timeline`."""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import monotonic

from deploy.local import infrastructure
from tests import infra
from tests.simulation.laboratory import tell
from tests.simulation.steps import crowded, mixture


def main() -> int:
    """Answers 1 if a seed violates something."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share them")
    parser.add_argument("--crowded", action="store_true", help="nothing fails, but transactions overlap as much as they can")
    parser.add_argument("--digests", action="store_true", help="print what each run came to, in one hash")
    parser.add_argument("--timeline", action="store_true", help="print every step of every run")
    arguments = parser.parse_args()
    began = monotonic()
    parts = [range(arguments.first + job, arguments.first + arguments.seeds, arguments.jobs) for job in range(arguments.jobs)]
    with database_server() as url, ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        work = partial(tell, url, mixture=crowded if arguments.crowded else mixture, digests=arguments.digests, timeline=arguments.timeline)
        violated = sorted(seed for answer in pool.map(work, parts) for seed in answer)
    if not arguments.digests:
        print(f"{arguments.seeds} seeds in {monotonic() - began:.0f} s, {len(violated)} of them violate something: {violated}")
    return bool(violated)


@contextmanager
def database_server() -> Iterator[str]:
    """The URL of the server that the environment names, or of one of our own for as long as we run."""
    os.environ.setdefault(infrastructure.KAFKA, "not needed")
    infra.begin()
    try:
        yield infra.addresses().database_url
    finally:
        infra.end()


if __name__ == "__main__":
    sys.exit(main())
