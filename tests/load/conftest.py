"""A system of these tests' own: its servers are nobody else's, and loaded by nobody else."""

import pytest

from deploy.local import infrastructure


@pytest.fixture(autouse=True)
def _own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(infrastructure.KAFKA, raising=False)
    monkeypatch.delenv(infrastructure.DATABASE, raising=False)
