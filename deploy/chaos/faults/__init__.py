"""All faults by name, and those that cannot be had on this machine."""

from deploy.chaos import disk
from deploy.chaos.fault import Fault
from deploy.chaos.faults import clock, kafka, mail, migrations, network, postgres, services

FAULTS: dict[str, Fault] = {
    **services.FAULTS,
    **migrations.FAULTS,
    **kafka.FAULTS,
    **postgres.FAULTS,
    **network.FAULTS,
    **mail.FAULTS,
    **clock.FAULTS,
}


def unavailable() -> dict[str, str]:
    """The faults that cannot strike on this machine, each with the reason."""
    problem = disk.problem()
    return {} if problem is None else {"disk_full": problem}
