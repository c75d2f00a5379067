"""API keys of the HTTP edges: `<role>:<name>:<signature>`, so that a key can be checked without a table.

Roles: `shop` (orders and cancellations), `warehouse` (shipments and receipts), `supplier` (its own acknowledgements).
Changing the secret invalidates all keys.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Who calls."""

    SHOP = "shop"
    WAREHOUSE = "warehouse"
    SUPPLIER = "supplier"


@dataclass(frozen=True, slots=True)
class Client:
    """The holder of a valid key."""

    role: Role
    name: str

    @property
    def source(self) -> str:
        """The CloudEvents source under which this client's ids are unique."""
        return f"/clients/{self.role}/{self.name}"


def _signature(secret: str, role: str, name: str) -> str:
    return hmac.new(secret.encode(), f"{role}:{name}".encode(), hashlib.sha256).hexdigest()[:40]


def key_for(secret: str, role: Role, name: str) -> str:
    """The API key of a client; `name` may itself contain colons."""
    return f"{role}:{name}:{_signature(secret, role, name)}"


def client_of(secret: str, key: str) -> Client | None:
    """The client that a key belongs to, or None if the key is not ours."""
    head, _, signature = key.rpartition(":")
    role, _, name = head.partition(":")
    if role not in set(Role) or not name or not hmac.compare_digest(signature, _signature(secret, role, name)):
        return None
    return Client(Role(role), name)
