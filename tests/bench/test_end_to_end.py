"""The bench itself, on few lines: whoever is measured does all of the work, and what is said of it can be true. No figure is judged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bench.result import LIMIT, NAIVE, OURS, SYSTEMS, Result
from deploy.bench.workloads import Name
from deploy.local import infrastructure
from shared.settings import SERVICES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_three_do_the_work_and_are_measured(servers: infrastructure.Addresses, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.local.cli", "bench", "--workload", "uniform", "--workload", "receipt_storm"]
    command += ["--lines", "300", "--rounds", "1", "--no-tune", "--json", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = Result.model_validate_json(done.stdout)
    assert found.rounds == 1
    assert found.machine.postgresql["fsync"] == found.machine.postgresql["synchronous_commit"] == "on"
    assert set(found.workloads) == {Name.UNIFORM, Name.RECEIPT_STORM}
    for workload in found.workloads.values():
        assert workload.lines == 300
        assert {system: len(rates) for system, rates in workload.lines_per_second_by_round.items()} == dict.fromkeys(SYSTEMS, 1)
        assert workload.lines_per_second
        assert workload.naive_lines_per_second
        assert workload.limit_lines_per_second
        assert workload.ratio_naive == pytest.approx(workload.lines_per_second / workload.naive_lines_per_second)
        assert workload.fraction_of_limit == pytest.approx(workload.lines_per_second / workload.limit_lines_per_second)
        assert workload.latency_ms
        # Nothing is decided before it is asked, nor after everything is done.
        assert 0 < workload.latency_ms.p50 <= workload.latency_ms.p99 <= 1000 * workload.lines / workload.lines_per_second
        assert workload.cpu_us_per_line.keys() >= set(SERVICES)
        assert all(workload.cpu_us_per_line[service] > 0 for service in SERVICES)
        assert workload.wal_bytes_per_line
        assert workload.wal_bytes_per_line > 100
        assert workload.rivals.keys() == {NAIVE, LIMIT}
    assert found.workloads[Name.UNIFORM].mails_per_second
    assert found.workloads[Name.RECEIPT_STORM].mails_per_second is None
    assert all(found.memory_mb[service] > 10 for service in SERVICES)
    assert OURS not in found.workloads[Name.UNIFORM].rivals
