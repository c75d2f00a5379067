"""The contracts as they were last released: `python -m tests.contract.release [--check]`.

`released/` holds, for every version of every message, its schema and one message as it was sent then. Only this command writes
it, as a part of a release, and only what breaks nothing that was released before.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from shared.codec import encode
from shared.contracts import REGISTRY
from tests.contract.compatibility import breaks, released
from tests.contract.examples import EXAMPLES

FOLDER = Path(__file__).parent / "released"


def kept(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Type name → what was released of it: topic, key, level, schema, and an example (its data as text)."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def now() -> dict[str, dict[str, Any]]:
    """The same of the contracts as they are."""
    examples = {type(example): encode(example).decode() for example in EXAMPLES}
    return {name: {**released(contract), "example": examples[contract]} for name, contract in REGISTRY.items()}


def main(given: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Keeps the contracts of now; or says what they break, and answers 1."""
    arguments = argparse.ArgumentParser(prog="python -m tests.contract.release", description=(__doc__ or "").partition(":")[0])
    arguments.add_argument("--check", action="store_true", help="change nothing; exit code 1 and words for everything that is broken")
    check = arguments.parse_args(given).check
    before, after = kept(folder), now()
    broken = breaks(before, after)
    for words in broken:
        print(words, file=sys.stderr)
    if broken:
        return 1
    if check:
        print(f"{len(before)} released contracts are as they were or have grown; {len(after.keys() - before.keys())} are new")
        return 0
    folder.mkdir(exist_ok=True)
    for name, what in after.items():
        (folder / f"{name}.json").write_bytes(orjson.dumps(what, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    print(f"{len(after)} contracts are released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
