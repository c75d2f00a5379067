"""The business clock of a driven local run (`system.clock`); absent in production."""

from typing import Annotated

from pydantic import Field

from shared.contracts.base import Contract, Instant, Topic

SYSTEM_CLOCK = Topic("system.clock", key="")
"""One partition, read by every process without a group or an inbox."""


class ClockSet(Contract):
    """At wall time `wall` it was `business` time, and business time runs `rate` times as fast (0 = held)."""

    business: Instant
    wall: Instant
    rate: Annotated[float, Field(ge=0, le=100_000_000, allow_inf_nan=False)]
