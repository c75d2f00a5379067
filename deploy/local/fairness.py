"""Who was served before whom, proven after the fact from inventory's ledger (design.md section 8, number 3).

A second implementation of "first come, first served" that shares nothing with the rule itself: the ledger says who waited at
every commit, so that whoever mistrusts the allocator can go through its whole history.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heappop, heappush
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

Entry: TypeAlias = tuple[str, int, str, int, int, datetime, int, int]
"""(SKU, number of the commit, order, line, queue class, queue time, units that the line was given, change of its units that wait)."""

ENTRIES = """
    SELECT ledger.sku, number, order_id, line, queue_class, queued_at,
        CASE WHEN kind = 'allocated' THEN ledger.allocated ELSE 0 END AS given, waiting
    FROM ledger JOIN demand USING (order_id, line)
    WHERE kind = 'allocated' OR waiting <> 0 ORDER BY ledger.sku, id"""
"""All entries about who waited and who was served, in the order of commits: ids are drawn under the SKU's lock. A line keeps its
place for life, so it is read from the line as it is now."""


def unfair(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """Every time that a line was given units in a commit after which one ahead of it, of the same SKU, still waited; of those
    ahead the head of the queue is named.

    Only who was known counts: a line waits from the commit in which it joined the queue, whatever its place, and units that were
    refused or cancelled do not wait. The heap forgets lines late, when they come up as its head, so n entries cost n log n.
    """
    for sku, history in groupby(entries, itemgetter(0)):
        waiting: defaultdict[tuple[int, datetime, str, int], int] = defaultdict(int)
        queue: list[tuple[int, datetime, str, int]] = []
        for number, commit in groupby(history, itemgetter(1)):
            given = []
            for _, _, order, line, queue_class, queued_at, units, change in commit:
                place = queue_class, queued_at, order, line
                if units:
                    given.append((place, units))
                before = waiting[place]
                waiting[place] = before + change
                if before <= 0 < before + change:
                    heappush(queue, place)
            while queue and waiting[queue[0]] <= 0:
                heappop(queue)
            for place, units in given:
                if queue and queue[0] < place:
                    yield {
                        "sku": sku, "number": number, "order_id": place[2], "line": place[3], "given": units,
                        "ahead": f"{queue[0][2]}/{queue[0][3]}", "ahead_waiting": waiting[queue[0]],
                    }  # fmt: skip
