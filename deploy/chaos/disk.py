"""A small disk in memory that can be filled: mounting it needs root."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_BALLAST = "ballast"
_BLOCK = bytes(1_000_000)


def problem() -> str | None:
    """Why no small disk can be had here; None when one can, as a trial has shown."""
    if not shutil.which("mount"):
        return "there is no `mount` on this machine"
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount(Path(folder), 1)
        except OSError as error:
            return str(error)
        unmount(Path(folder))
    return None


def mount(folder: Path, megabytes: int) -> None:
    """Mounts an empty disk of this size. Raises OSError where this account may not."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"a small disk could not be mounted: {result.stderr.strip()}")


def unmount(folder: Path) -> None:
    """Takes the disk away with all data on it; nothing to take away is fine."""
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> int:
    """Leaves no room on the disk; answers how many bytes that took."""
    with (folder / _BALLAST).open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK):
                pass
        except OSError:
            return file.tell()
    raise AssertionError("a write that writes nothing")


def make_room(folder: Path) -> None:
    """Takes away what `fill` left."""
    (folder / _BALLAST).unlink(missing_ok=True)
