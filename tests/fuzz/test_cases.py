"""The fuzzer knows what must come of its messages: reading each gives its verdict, in words that name the field and what to do."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from aiokafka import ConsumerRecord

from shared.codec import Delivery, read
from shared.contracts import TOPICS
from tests.fuzz.cases import World, cases
from tests.fuzz.changes import CHANGES
from tests.fuzz.draft import PARSED, Case
from tests.fuzz.verdicts import Letter, wrong

WORLD = World(partitions=4)
READ = [topic.name for topic in TOPICS if topic.name not in {"inventory.stock", "purchasing.orders", "notices.events"}]


def delivered(case: Case, topic: str) -> Delivery:
    wire = case.wire
    record = ConsumerRecord(topic, wire.partition, 0, wire.timestamp or 0, 0, wire.key, wire.value, 0, 0, 0, tuple(wire.headers))
    return read(record, topic)


@pytest.mark.parametrize("topic", READ)
@pytest.mark.parametrize("seed", range(3))
def test_reading_a_case_gives_its_verdict(topic: str, seed: int) -> None:
    for case in cases(seed, topic, 700, WORLD):
        delivery = delivered(case, topic)
        letters = [Letter(index, flaw.reason, flaw.detail, "refused") for index, flaw in delivery.flaws]
        assert wrong(case, letters) is None, case.wire


def test_every_kind_comes_up_and_every_reason() -> None:
    found = [(case.kind, case.verdict.reason) for topic in READ for case in cases(1, topic, 500, WORLD)]
    kinds, reasons = Counter(kind for kind, _ in found), {reason for _, reason in found}
    assert kinds.keys() == CHANGES.keys()
    assert reasons >= PARSED - {"unreadable", "id_reused"}


def test_a_seed_says_everything() -> None:
    """Also in another process, whose sets have another order."""
    made = "from tests.fuzz.cases import *; print([list(cases(7, 'suppliers.messages', 300, World(4))), list(cases(7, 'orders.demand', 50, World(4)))])"
    processes = [
        subprocess.run((sys.executable, "-c", made), env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True)
        for seed in "12"
    ]
    assert processes[0].stdout == processes[1].stdout
    assert list(cases(7, "suppliers.messages", 50, WORLD)) != list(cases(8, "suppliers.messages", 50, WORLD))
