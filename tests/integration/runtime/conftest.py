"""Bugs that a test plants stay its own, and the log of what is meant to break stays short."""

from collections.abc import Iterator

import pytest

from shared import log
from tests.integration.runtime.toy import FAULTS


@pytest.fixture(autouse=True, scope="session")
def _plain_log() -> None:
    log.configure("INFO", service="test", instance="1")


@pytest.fixture(autouse=True)
def _no_faults_left() -> Iterator[None]:
    yield
    FAULTS.clear()
