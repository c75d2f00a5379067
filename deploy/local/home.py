"""The folder of one local system: everything it keeps, and nothing of any other system."""

import fcntl
import os
import secrets
import shutil
import socket
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field

# Below the ports that operating systems hand to outgoing connections (from 32768 on Linux, 49152 on macOS): a server
# that is down for a moment does not find its port lent to a client when it comes back.
_PORTS = range(20_000, 32_000)

# Kafka and PostgreSQL start at once in one process; between processes `Home.lock` keeps order.
_changing = threading.RLock()


def _cluster_id() -> str:
    """A random id in Kafka's notation; the fixed first bytes keep it from looking like a command-line option."""
    return urlsafe_b64encode(b"bo" + secrets.token_bytes(14)).decode().rstrip("=")


class Plan(BaseModel):
    """What `up` was asked for: enough to start any single process of the system again exactly as it was."""

    namespace: str
    clock: str
    instances: dict[str, int]
    extra_env: dict[str, str]
    service_env: dict[str, dict[str, str]] = {}
    runner: str = ""
    kafka: str
    database_url: str


class State(BaseModel):
    """What must stay the same from one start to the next."""

    password: str = Field(default_factory=lambda: secrets.token_urlsafe(24), description="Of the database's superuser.")
    api_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(32), description="Signs the API keys.")
    cluster_id: str = Field(default_factory=_cluster_id, description="Tells our Kafka from any other on the port.")
    ports: dict[str, int] = {}
    brokers: int | None = Field(default=None, description="Over how many of our own the data of Kafka are spread.")
    plan: Plan | None = None


class Home:
    """One local system's folder: `.backorder/` in the current directory unless told otherwise."""

    def __init__(self, path: Path | str = ".backorder") -> None:
        self.path = Path(path).absolute()
        self.logs = self.path / "logs"
        self.pids = self.path / "pids"
        self.mail = self.path / "mail"
        self._state_file = self.path / "state.json"

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def exists(self) -> bool:
        """Whether a system was ever started here."""
        return self._state_file.exists()

    def create(self) -> None:
        """Make the folders."""
        for folder in (self.path, self.logs, self.pids, self.mail):
            folder.mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Delete the folder with all data in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let only one process at a time start or stop things here."""
        self.create()
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def state(self) -> State:
        """The recorded state; a fresh one, with new secrets, is recorded at the first look."""
        with _changing:
            if not self._state_file.exists():
                self.create()
                write_private(self._state_file, State().model_dump_json(indent=2))
            return State.model_validate_json(self._state_file.read_bytes())

    @contextmanager
    def changing(self) -> Iterator[State]:
        """Change the recorded state; it is replaced as a whole, so that a crash leaves the old one or the new one."""
        with _changing:
            state = self.state()
            yield state
            write_private(self._state_file, state.model_dump_json(indent=2))

    def port(self, name: str) -> int:
        """The port kept for a server, chosen at the first question."""
        return self.state().ports.get(name) or self.choose_port(name)

    def usable_port(self, name: str) -> int:
        """The port kept for a server that does not run, chosen anew when someone else has taken it."""
        port = self.port(name)
        return port if is_free(port) else self.choose_port(name)

    def choose_port(self, name: str) -> int:
        """Choose and record another free port."""
        with self.changing() as state:
            taken = set(state.ports.values())
            candidates = iter(lambda: secrets.choice(_PORTS), None)
            state.ports[name] = next(port for port in candidates if port not in taken and is_free(port))
            return state.ports[name]


def is_free(port: int) -> bool:
    """Whether a server could listen there now (connections of a former one that linger do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    with open(draft, "w", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
