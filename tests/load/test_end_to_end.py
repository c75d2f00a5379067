"""Both commands, short: the whole of it is done and measured. What depends on how busy the machine is, is not judged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.load.result import Run, Soak
from deploy.load.world import INSTANCES
from shared.settings import SERVICES

pytestmark = pytest.mark.slow

SECONDS = 12
LATE = "99 of 100 reads are answered in time"
TRENDS = {"flat over time", "flat per line"}
"""A few seconds have no warm-up."""


def ran(command: str, *options: str, home: Path) -> tuple[int, str, str]:
    words = [sys.executable, "-m", "deploy.local.cli", command, "--minutes", str(SECONDS / 60), *options, "--json", "--home", str(home)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout, done.stderr
    return done.returncode, done.stdout, done.stderr


def borne(found: Run, told: str) -> None:
    """What holds on any machine."""
    assert {violation["check"] for violation in found.violations} <= {LATE} | TRENDS, told
    assert found.lines == pytest.approx(found.times * found.sustainable_lines_per_second * SECONDS, rel=0.01)
    assert found.end.wrong == 0
    assert found.end.audited > 10_000
    assert found.end.drained_seconds is not None
    assert found.end.settled_seconds is not None
    assert found.died == []
    assert {name: group.members for name, group in found.groups.items()} == dict.fromkeys(SERVICES, INSTANCES)
    assert all(group.changes == group.assignments == 0 for group in found.groups.values())
    assert {name.partition("-")[0] for name in found.memory} == {*SERVICES, "kafka", "postgres", "smtp"}
    assert all(each.peak_mb > 10 for each in found.memory.values())
    assert set(found.reads) == {"order", "sku", "queue", "live", "ready"}
    assert all(set(latency.statuses) == {"200"} and latency.count >= SECONDS for latency in found.reads.values())


@pytest.mark.timeout(300)
def test_a_system_bears_several_times_what_it_can_do(tmp_path: Path) -> None:
    code, answer, told = ran("overload", "--times", "4", home=tmp_path)
    found = Run.model_validate_json(answer)
    borne(found, told)
    assert code == bool(found.violations)
    assert not TRENDS & {violation["check"] for violation in found.violations}
    assert found.peak_lag_records > 100


@pytest.mark.timeout(300)
def test_a_system_bears_half_of_what_it_can_do_for_long(tmp_path: Path) -> None:
    code, answer, told = ran("soak", home=tmp_path)
    found = Soak.model_validate_json(answer)
    borne(found, told)
    assert code == bool(found.violations)
    assert {f"{service}: inbox, rows" for service in SERVICES} <= set(found.per_line)
    assert {f"{service}: outbox, rows" for service in SERVICES} <= set(found.series)
    assert {"orders-1, MB", "orders-2, files", "postgres, threads", "kafka, MB"} <= set(found.series)
    assert found.per_line["orders: tables, bytes"].level > 100
    assert set(found.dead_rows) == set(SERVICES)
