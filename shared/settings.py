"""What a service is told from outside: one immutable object read from the environment at start."""

from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICES = ("orders", "inventory", "purchasing", "notifier")


class ClockSource(StrEnum):
    """Where business time comes from: the wall clock, or the topic `system.clock` of a driven local run."""

    WALL = "wall"
    TOPIC = "topic"


class Settings(BaseSettings):
    """Environment of one process. `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL` keep their usual names; the rest begins with `BACKORDER_`.

    `namespace` prefixes topics (`<namespace>.orders.events`), consumer groups and databases
    (`backorder_<namespace>_orders`), so that several systems can share one broker and one database server.
    """

    model_config = SettingsConfigDict(env_prefix="BACKORDER_", frozen=True, extra="ignore", populate_by_name=True)

    kafka_bootstrap_servers: str = Field(
        validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "kafka_bootstrap_servers"),
        default="127.0.0.1:9092",
    )
    database_url: str = Field(
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        default="postgresql://postgres@127.0.0.1:5432/postgres",
        description="A PostgreSQL server; the databases `backorder_<service>` are made on it.",
    )
    namespace: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    instance: str = Field(default="1", description="Unique among the running instances of one service; survives a restart.")
    partitions: int = Field(default=12, ge=1, description="Partitions of every topic but `system.clock`; fixed for a system's life.")
    replication: int = Field(default=1, ge=1)
    http_host: str = "127.0.0.1"
    http_port: int = 0
    api_secret: str = Field(default="local-development-only", description="Signs the API keys that the HTTP edges accept.")
    smtp_url: str = Field(default="smtp://127.0.0.1:2525")
    mail_from: str = "Backorder <orders@backorder.example>"
    clock: ClockSource = ClockSource.WALL
    time_zone: str = Field(default="UTC", description="IANA name of the warehouse's zone: promise dates are its calendar days.")
    consolidation_hours: float = Field(default=4.0, gt=0, description="Business hours that a planned purchase order waits for more lines.")
    digest_minutes: float = Field(default=15.0, ge=0, description="Business minutes that an order's notices wait for one another.")
    log_level: str = "INFO"

    @property
    def zone(self) -> ZoneInfo:
        """The warehouse's time zone."""
        return ZoneInfo(self.time_zone)

    def topic(self, name: str) -> str:
        """The topic's name on the broker."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def database(self, service: str) -> str:
        """The name of a service's database."""
        return f"backorder_{self.namespace}_{service}" if self.namespace else f"backorder_{service}"

    def dsn(self, service: str) -> str:
        """The URL of a service's database on the given server."""
        parts = urlsplit(self.database_url)
        return urlunsplit(parts._replace(path=f"/{self.database(service)}"))
