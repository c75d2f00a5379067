"""What leaves in lists: no record is larger than the broker takes, however long the ids are."""

from datetime import UTC, datetime

import pytest

from shared.codec import read
from shared.contracts.base import MAX_MESSAGE_BYTES
from shared.contracts.orders import DemandSet
from shared.outbox import ITEMS_PER_RECORD, records
from shared.service import Send
from shared.settings import Settings
from tests.contract.examples import headers_of, record

AT = datetime(2026, 1, 1, tzinfo=UTC)


def claims(count: int, stem: str, cause: str) -> list[DemandSet]:
    return [
        DemandSet(
            order=f"{stem}{number}", line=number, sku=stem, wanted=1, shipped=0,
            queued_at=AT, ordered_at=AT, demand_version=1, version=1, causation=cause,
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stem", "cause", "most"), [("A-", "m#0", ITEMS_PER_RECORD), ("\U0001f4e6" * 60, "\x01" * 300, ITEMS_PER_RECORD // 2)]
)
def test_lists_are_cut_by_number_and_by_size_and_keep_their_order(stem: str, cause: str, most: int) -> None:
    items = claims(ITEMS_PER_RECORD + 1, stem, cause)
    sent = list(records([Send(item, "") for item in items], Settings(), AT))
    lists = [read(record("orders.demand", headers_of(items[0]), each.value), "orders.demand").messages for each in sent]
    assert [message for messages in lists for _, message in messages] == items
    assert max(map(len, lists)) == most
    assert all(len(each.value) <= MAX_MESSAGE_BYTES for each in sent)
