"""Choices that look random and are not: the same names give the same choice in every run, on every machine."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def fraction(*names: object) -> float:
    """A number in [0, 1) that depends on the names alone."""
    text = "|".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def one_of(options: Sequence[T], *names: object) -> T:
    """One of the options."""
    return options[int(fraction(*names) * len(options))]
