"""A stage of these tests' own, which can be broken: its servers are nobody else's."""

import pytest

from deploy.local import infrastructure


@pytest.fixture(autouse=True)
def _own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(infrastructure.KAFKA, raising=False)
    monkeypatch.delenv(infrastructure.DATABASE, raising=False)
