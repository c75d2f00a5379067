"""What no single service can see: that their databases tell one story (design.md section 8, numbers 1, 4, 5, 6, 7).

Pure functions over rows; `FACTS` says which rows, one set-based query each.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
Facts: TypeAlias = Mapping[str, list[Row]]
"""Name of a query in FACTS → its rows."""
Found: TypeAlias = tuple[str, dict[str, Any], str]
"""A violation: service, offending row, what was expected."""

FACTS: dict[str, dict[str, str]] = {
    "orders": {
        "orders' lines": """
            SELECT order_id, line, sku, ordered - cancelled AS wanted, shipped, served, demand_version FROM line""",
        "orders' promises": """
            SELECT order_id, line, ship_by FROM line JOIN line_amounts USING (order_id, line) WHERE backordered > 0""",
        "orders' outcomes": "SELECT order_id, line, shipped, cancelled FROM line WHERE shipped > 0 OR cancelled > 0",
        "accepted orders": """
            SELECT order_id, md5(customer_email) AS address, customer_language AS language, customer_zone AS time_zone
            FROM orders WHERE status = 'accepted'""",
    },
    "inventory": {
        "inventory's lines": "SELECT order_id, line, sku, wanted, shipped, served, demand_version FROM demand",
        "inventory's SKUs": "SELECT sku, on_hand, waiting, needed_by, received_total FROM sku",
        "inventory's supply": """
            SELECT purchase_order, line, sku, committed, open, CASE WHEN open > 0 THEN expected_on END AS expected_on FROM supply""",
        "ledger's receipts": """
            SELECT receipt, purchase_order, line, sku, sum(on_hand) AS units FROM ledger WHERE kind = 'received' GROUP BY 1, 2, 3, 4""",
        "opening counts": "SELECT sku, sum(on_hand) AS units FROM ledger WHERE kind = 'counted' GROUP BY sku",
    },
    "purchasing": {
        "purchasing's SKUs": "SELECT sku, waiting, needed_by, received_total FROM sku",
        "purchase lines": """
            SELECT purchase_order, line, sku, received, committed, committed - received AS open,
                   CASE WHEN committed > received THEN expected_on END AS expected_on
            FROM (SELECT *, ordered - declined - closed_short AS committed FROM purchase_line) AS line""",
        "booked receipts": """
            SELECT receipt, purchase_order, (booking ->> 'line')::int AS line, booking ->> 'sku' AS sku, sum((booking ->> 'good')::bigint) AS units
            FROM receipt, jsonb_array_elements(lines) AS booking WHERE (booking ->> 'good')::bigint > 0 GROUP BY 1, 2, 3, 4""",
        "open exceptions": "SELECT sku, quantity FROM exception WHERE closed_at IS NULL",
    },
    "notifier": {
        "contacts": "SELECT order_id, md5(email) AS address, language, time_zone FROM correspondence",
        "noticed promises": """
            SELECT DISTINCT ON (order_id, line) order_id, line, ship_by FROM every_notice
            WHERE kind IN ('backordered', 'date_changed') ORDER BY order_id, line, version DESC""",
        "noticed outcomes": """
            SELECT order_id, line, coalesce(max(total) FILTER (WHERE kind = 'shipped'), 0) AS shipped,
                   coalesce(max(total) FILTER (WHERE kind = 'cancelled'), 0) AS cancelled
            FROM every_notice WHERE kind IN ('shipped', 'cancelled') GROUP BY order_id, line""",
    },
}
"""Service → name of a query → SQL."""

_OWNER = {title: service for service, queries in FACTS.items() for title in queries}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two services hold the same of the same things: what the left one owns, `told` by `key`, the right one has from it.
    A row that one side lacks counts as `absent`, if that is given.

    With `within`, only the left side's rows must be found on the right. With `moving`, rows known to both must agree even
    while messages are under way, since their key says of which version they are.
    """

    left: str
    right: str
    key: tuple[str, ...]
    told: tuple[str, ...]
    absent: Mapping[str, Any] | None = None
    within: bool = False
    moving: bool = False

    def violations(self, facts: Facts, *, settled: bool) -> Iterator[Found]:
        """Rows of the right side that are not what the left side has."""
        service, teller = _OWNER[self.right], _OWNER[self.left]
        left, right = self._keyed(facts[self.left]), self._keyed(facts[self.right])
        if left == right:  # as nearly always, and quickly said
            return
        absent = None if self.absent is None else tuple(self.absent[name] for name in self.told)
        keys = left.keys() & right.keys() if not settled else left.keys() if self.within else left.keys() | right.keys()
        for key in sorted(key for key in keys if left.get(key, absent) != right.get(key, absent)):
            mine, told = right.get(key, absent), left.get(key, absent)
            row = dict(zip(self.key, key, strict=True)) | ({"row": "missing"} if mine is None else dict(zip(self.told, mine, strict=True)))
            expected = (
                "no such row" if told is None else ", ".join(f"{name} = {value}" for name, value in zip(self.told, told, strict=True))
            )
            yield service, row, f"as {teller} has it: {expected}"

    def _keyed(self, rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return dict(zip(_columns(self.key, rows), _columns(self.told, rows), strict=True))


def _columns(names: tuple[str, ...], rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """These columns of the rows, without a loop of ours: there are hundreds of thousands."""
    return zip(*(map(itemgetter(name), rows) for name in names), strict=True)


LINE, PURCHASE_LINE = ("order_id", "line"), ("purchase_order", "line", "sku")

AGREEMENTS: dict[str, Agreement] = {
    "orders and inventory agree on every claim": Agreement(
        "orders' lines", "inventory's lines", (*LINE, "sku", "demand_version"), ("wanted",), moving=True
    ),
    "orders and inventory agree on what has shipped": Agreement("orders' lines", "inventory's lines", (*LINE, "sku"), ("shipped",)),
    "orders and inventory agree on what is served": Agreement("inventory's lines", "orders' lines", (*LINE, "sku"), ("served",)),
    "inventory booked what purchasing received, receipt by receipt": Agreement(
        "booked receipts", "ledger's receipts", ("receipt", *PURCHASE_LINE), ("units",), moving=True
    ),
    "purchasing knows what is short": Agreement(
        "inventory's SKUs", "purchasing's SKUs", ("sku",), ("waiting", "needed_by", "received_total"),
        absent={"waiting": 0, "needed_by": None, "received_total": 0},
    ),
    "inventory knows what is coming": Agreement(
        "purchase lines", "inventory's supply", PURCHASE_LINE, ("committed", "open", "expected_on"),
        absent={"committed": 0, "open": 0, "expected_on": None},
    ),
    "the notifier knows whom to write to about every order": Agreement(
        "accepted orders", "contacts", ("order_id",), ("address", "language", "time_zone")
    ),
    "every promise has its notice": Agreement("orders' promises", "noticed promises", LINE, ("ship_by",), within=True),
    "everything shipped or cancelled has its notice": Agreement(
        "orders' outcomes", "noticed outcomes", LINE, ("shipped", "cancelled"), absent={"shipped": 0, "cancelled": 0}
    ),
}  # fmt: skip


def stock(facts: Facts) -> Iterator[Found]:
    """Per SKU: opening count (inventory) + received (purchasing) − shipped (orders) = on hand (inventory)."""
    expected = _per_sku(facts["opening counts"], "units")
    for sku, units in _per_sku(facts["purchase lines"], "received").items():
        expected[sku] += units
    for sku, units in _per_sku(facts["orders' lines"], "shipped").items():
        expected[sku] -= units
    found = _per_sku(facts["inventory's SKUs"], "on_hand")
    for sku in sorted(expected.keys() | found.keys()):
        if expected[sku] != found[sku]:
            yield "inventory", {"sku": sku, "on_hand": found[sku]}, f"opening + received - shipped = {expected[sku]}"


def covered(facts: Facts) -> Iterator[Found]:
    """Every waiting unit is covered by supply that is still to come, planned or issued, or is an operator's by an open exception."""
    coming, excepted = _per_sku(facts["purchase lines"], "open"), _per_sku(facts["open exceptions"], "quantity")
    for row in facts["inventory's SKUs"]:
        sku, waiting = row["sku"], row["waiting"]
        if waiting > coming[sku] + excepted[sku]:
            yield (
                "purchasing",
                {"sku": sku, "waiting": waiting, "coming": coming[sku], "excepted": excepted[sku]},
                f"{waiting} units covered",
            )


def _per_sku(rows: Iterable[Row], column: str) -> defaultdict[str, int]:
    sums: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        sums[row["sku"]] += int(row[column])
    return sums


SUMS: dict[str, tuple[str, Callable[[Facts], Iterator[Found]]]] = {
    "opening + received - shipped = on hand, per SKU": ("inventory's SKUs", stock),
    "every waiting unit is covered by supply or an exception": ("inventory's SKUs", covered),
}
"""Name → what is counted as checked, and the check; they hold once messages have settled."""
