"""The jars of Apache Kafka: resolved once from their coordinates, then used from a cache, always by their hash."""

import fcntl
import hashlib
import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jgo.env import EnvironmentBuilder, LinkStrategy
from jgo.maven import MavenContext, PythonResolver
from pydantic import BaseModel

from deploy.local.errors import UserError

LOCK = Path(__file__).with_name("jars.toml")
_PAUSES = (1.0, 4.0, 15.0)


class JarLock(BaseModel):
    """`jars.toml`: what to ask for, and the hash of every jar by its coordinates."""

    endpoint: str
    sha256: dict[str, str]

    @property
    def by_file(self) -> dict[str, str]:
        """The hash of every jar by its file name."""
        return {f"{artifact}-{version}.jar": self.sha256[key] for key in self.sha256 for _, artifact, version in [key.split(":")]}


def cache() -> Path:
    """Where jars are kept: beside the code, so that a clean checkout is self-contained, or where BACKORDER_CACHE says."""
    root = os.environ.get("BACKORDER_CACHE") or Path(__file__).parents[2] / ".cache"
    return Path(root).absolute() / "jars"


def lock(path: Path = LOCK) -> JarLock:
    """Read the list of jars."""
    return JarLock.model_validate(tomllib.loads(path.read_text()))


def resolve(wanted: JarLock, folder: Path) -> list[Path]:
    """All jars, each proven by its hash; those that the cache lacks are fetched first."""
    if not _complete(wanted, folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusively(folder):
            if not _complete(wanted, folder):
                _fetch(wanted, folder)
    jars = [folder / name for name in wanted.by_file]
    for jar in jars:
        _verify(jar, wanted.by_file[jar.name])
    return jars


def _complete(wanted: JarLock, folder: Path) -> bool:
    return all((folder / name).exists() for name in wanted.by_file)


def _fetch(wanted: JarLock, folder: Path) -> None:
    """Download into a folder aside, and move each jar over only when its hash is right."""
    aside = folder / "resolving"
    context = MavenContext(repo_cache=aside / "repository", resolver=PythonResolver())
    builder = EnvironmentBuilder(context=context, cache_dir=aside / "environments", link_strategy=LinkStrategy.HARD)
    found = {jar.name: jar for jar in _ask(builder, wanted.endpoint, folder)}
    for name, sha256 in wanted.by_file.items():
        if name not in found:
            raise UserError(f"{wanted.endpoint} resolved without {name}, which {LOCK.name} lists")
        _verify(found[name], sha256)
    for name in wanted.by_file:
        found[name].replace(folder / name)
    shutil.rmtree(aside)


def _ask(builder: EnvironmentBuilder, endpoint: str, folder: Path) -> list[Path]:
    """Ask the resolver, and again after growing pauses: networks fail for a moment."""
    pauses = list(_PAUSES)
    while True:
        try:
            return builder.from_endpoint(endpoint).all_jars
        except Exception as error:  # whatever the resolver's network and parsing code may raise
            if not pauses:
                raise UserError(f"could not download {endpoint} into {folder}, tried {len(_PAUSES) + 1} times: {error!r}") from error
            time.sleep(pauses.pop(0))


def _verify(jar: Path, sha256: str) -> None:
    with jar.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise UserError(f"{jar} is not the jar that {LOCK.name} names: its sha256 is {actual}, not {sha256}; delete it to fetch it again")


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
