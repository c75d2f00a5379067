"""A system goes on as it was started, whichever shell asks."""

from pathlib import Path

import pytest

from deploy.local import system
from deploy.local.home import Home, Plan


def test_services_decide_by_the_settings_that_the_system_was_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    monkeypatch.setenv("BACKORDER_TIME_ZONE", "Europe/Paris")
    plan = Plan(namespace="n", clock="wall", instances={}, extra_env=system._told(), kafka="k:1", database_url="postgresql://s/d")
    with home.changing() as state:
        state.plan = plan
    monkeypatch.setenv("BACKORDER_TIME_ZONE", "Asia/Tokyo")
    monkeypatch.setenv("BACKORDER_DIGEST_MINUTES", "1")
    found = system.settings(home)
    assert (found.time_zone, found.digest_minutes) == ("Europe/Paris", 15.0)
