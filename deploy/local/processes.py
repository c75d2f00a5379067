"""Processes that outlive the command which started them: started detached, found again by record, stopped for certain."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from deploy.local.errors import UserError
from deploy.local.home import Home, write_private

_TAIL_BYTES = 1_500

# A child of this very process must be reaped by it, or it would look alive for ever after its end.
_children: dict[int, "subprocess.Popen[bytes]"] = {}


class Record(BaseModel):
    """A process as it was when it started; a later one with the same number has another start time."""

    pid: int
    started: float
    command: list[str]


def start(
    home: Home,
    name: str,
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    group: int | None = None,
) -> int:
    """Start a process in a session of its own (Ctrl-C in this terminal does not reach it) and record it."""
    home.create()
    words = [str(word) for word in command]
    with log_file(home, name).open("ab") as log:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd or home.path,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
    _children[child.pid] = child
    with suppress(psutil.NoSuchProcess):
        record = Record(pid=child.pid, started=psutil.Process(child.pid).create_time(), command=words)
        write_private(_record_file(home, name), record.model_dump_json())
    return child.pid


def pid_of(home: Home, name: str) -> int | None:
    """The number of the recorded process while it lives."""
    process = _find(home, name)
    return process.pid if process else None


def running(home: Home) -> list[str]:
    """The names of all recorded processes that live."""
    return sorted(name for file in home.pids.glob("*.json") if _find(home, name := file.stem))


def stop(home: Home, name: str, *, timeout: float = 20.0, first: signal.Signals = signal.SIGTERM) -> bool:
    """Ask the process to end, and end it after the timeout; whether it ended by itself. Nothing to stop is fine."""
    process = _find(home, name)
    gentle = True
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(first)
        gentle = _gone(process, timeout)
        if not gentle:
            kill_tree(process)
    _record_file(home, name).unlink(missing_ok=True)
    return gentle


def stop_all(home: Home, names: Iterable[str], *, timeout: float = 20.0) -> list[str]:
    """Stop several at once; the names of those that had to be killed."""
    names = list(names)
    if not names:
        return []
    with ThreadPoolExecutor(len(names)) as pool:
        gentle = pool.map(lambda name: stop(home, name, timeout=timeout), names)
        return [name for name, ended in zip(names, gentle, strict=True) if not ended]


def kill(home: Home, name: str) -> None:
    """End the process with its children as a power cut would, leaving its record as a crash leaves it."""
    if process := _find(home, name):
        kill_tree(process)


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL a process and its descendants, and wait until they are gone."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        for member in family:
            _gone(member, 10.0)


def wait_until(home: Home, name: str, ready: Callable[[], bool], *, timeout: float) -> None:
    """Wait until a started process answers; say what its log says when it ends or never does."""
    deadline = time.monotonic() + timeout
    while not ready():
        if pid_of(home, name) is None:
            raise UserError(f"{name} ended while starting; its log {log_file(home, name)} ends with:\n{tail(home, name)}")
        if time.monotonic() > deadline:
            raise UserError(f"{name} is not ready after {timeout:.0f} s; its log {log_file(home, name)} ends with:\n{tail(home, name)}")
        time.sleep(0.05)


def log_file(home: Home, name: str) -> Path:
    """Where a process's output goes."""
    return home.logs / f"{name}.log"


def tail(home: Home, name: str) -> str:
    """The end of a process's log."""
    with suppress(FileNotFoundError), log_file(home, name).open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
        return log.read().decode(errors="replace").strip()
    return "(nothing)"


def _record_file(home: Home, name: str) -> Path:
    return home.pids / f"{name}.json"


def _find(home: Home, name: str) -> psutil.Process | None:
    """The living process behind a record: the number alone proves nothing, for numbers are used again.

    The start time settles it, unless the machine's clock was set meanwhile; then the command line does.
    """
    try:
        record = Record.model_validate_json(_record_file(home, name).read_bytes())
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.started) < 1.0 or process.cmdline() == record.command
    except (FileNotFoundError, ValidationError, psutil.Error):
        return None
    return process if same and _alive(process) else None


def _alive(process: psutil.Process) -> bool:
    if child := _children.get(process.pid):
        if child.poll() is None:
            return True
        del _children[process.pid]
        return False
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _gone(process: psutil.Process, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while _alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
