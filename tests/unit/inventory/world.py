"""The others around inventory, with numbers of their own: orders that grow smaller and ship, purchases that come, slip and close.

Everything that happens is drawn from a list of (step, number) pairs, so that hypothesis can shrink it.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from shared.contracts.warehouse import BackorderPolicy
from tests.unit.inventory.house import House, counted, day, defined, demand, received, supply

SKUS = ("A", "B", "C")
STEPS = ("order", "order", "order", "cancel", "ship", "ship", "purchase", "slip", "shrink", "receive", "receive", "define", "count")

_OPENING = [("define", 3), ("define", 1), ("count", 5)]
"""A and B may be backordered, C is unknown as yet."""

batches = st.lists(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9_999)), min_size=1, max_size=8), min_size=1, max_size=12).map(
    lambda steps: [_OPENING, *steps]
)
"""Transactions of steps."""


@dataclass
class World:
    """What orders, purchasing and the warehouse know; each step answers the messages that it sends."""

    house: House
    lines: list[dict[str, Any]] = field(default_factory=list)
    purchases: list[dict[str, Any]] = field(default_factory=list)
    counts: set[str] = field(default_factory=set)
    receipts: int = 0

    def messages(self, steps: list[tuple[str, int]]) -> list[Any]:
        """The messages of one batch."""
        return [message for step, number in steps for message in getattr(self, f"_{step}")(number)]

    def _order(self, number: int) -> list[Any]:
        # the queue time is not the order of arrival: batches of different partitions interleave
        line = {
            "order": f"O{len(self.lines)}",
            "sku": SKUS[number % 3],
            "wanted": 1 + number % 5,
            "shipped": 0,
            "version": 0,
            "asks": 1,
            "at": number % 50,
        }
        self.lines.append(line)
        return self._claim(line)

    def _claim(self, line: dict[str, Any]) -> list[Any]:
        line["version"] += 1
        return [
            demand(
                line["order"], line["wanted"], line["version"], sku=line["sku"], shipped=line["shipped"], at=line["at"], asks=line["asks"]
            )
        ]  # fmt: skip

    def _cancel(self, number: int) -> list[Any]:
        if not self.lines:
            return []
        line = self.lines[number % len(self.lines)]
        line["wanted"] = max(line["shipped"], line["wanted"] - 1 - number % 3)
        line["asks"] = line["version"] + 1
        return self._claim(line)

    def _ship(self, number: int) -> list[Any]:
        if not self.lines:
            return []
        line = self.lines[number % len(self.lines)]
        stored = self.house.demands.get((line["order"], 1))
        if stored is None or stored.demand_version != line["asks"]:
            return []  # orders heeds only the answer to its newest version
        picked = min(stored.served, line["wanted"]) - line["shipped"]
        line["shipped"] += min(picked, 1 + number % 4)
        return self._claim(line) if picked else []

    def _purchase(self, number: int) -> list[Any]:
        units = 1 + number % 6
        when = None if number % 5 == 0 else day(number % 9)
        line = {"id": f"P-{len(self.purchases)}", "sku": SKUS[number % 3], "committed": units, "open": units, "day": when, "version": 0}
        self.purchases.append(line)
        return self._outlook(line)

    def _outlook(self, line: dict[str, Any]) -> list[Any]:
        line["version"] += 1
        return [
            supply(line["open"], line["day"], line["version"], line["id"], line["sku"], committed=line["committed"])
        ]  # fmt: skip

    def _slip(self, number: int) -> list[Any]:
        if not self.purchases:
            return []
        line = self.purchases[number % len(self.purchases)]
        line["day"] = None if number % 4 == 0 else day(number % 11)
        return self._outlook(line)

    def _shrink(self, number: int) -> list[Any]:
        if not self.purchases:
            return []
        line = self.purchases[number % len(self.purchases)]
        declined = min(line["open"], 1 + number % 3)
        line["open"] -= declined
        line["committed"] -= declined
        return self._outlook(line)

    def _receive(self, number: int) -> list[Any]:
        coming = [line for line in self.purchases if line["open"]]
        if not coming:
            return []
        line = coming[number % len(coming)]
        good = min(line["open"], 1 + number % 4)
        line["open"] -= good
        self.receipts += 1
        return [received(good, f"R-{self.receipts}", line["id"], sku=line["sku"]), *self._outlook(line)]

    def _define(self, number: int) -> list[Any]:
        return [defined(SKUS[number % 3], BackorderPolicy.DENY if number % 4 == 0 else BackorderPolicy.ALLOW)]

    def _count(self, number: int) -> list[Any]:
        sku = SKUS[number % 3]
        if sku in self.counts:
            return []
        self.counts.add(sku)
        return [counted(number % 7, sku)]
