"""One small run of the whole: three brokers, eight services, a hostile world, four faults, the verdict, the journal, the calm run."""

from pathlib import Path

import pytest

from deploy.chaos.result import told
from deploy.chaos.run import Plan, run
from deploy.local.home import Home


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_system_under_load_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    plan = Plan(seed=3, faults=4, minutes=0.3, kinds=("service_killed_at", "broker_killed", "sessions_terminated", "link_cut"), pace=0.3)
    done = run(Home(tmp_path / "home"), plan, print)
    result = done.result
    assert result.ok, "\n".join(told(done.violations, done.timeline, done.log, plan.command))
    assert result.faults_total + result.details.missed == 4
    assert result.applied == result.accepted > 200
    assert result.duplicates_dropped > 20
    assert result.details.poison > 3
    assert result.details.audits > 0
    assert result.details.lines > 100
    assert result.details.http["202"] > 50
