"""All faults by name."""

from deploy.chaos.fault import Fault
from deploy.chaos.faults import kafka, network, postgres, services

FAULTS: dict[str, Fault] = {**services.FAULTS, **kafka.FAULTS, **postgres.FAULTS, **network.FAULTS}
