"""The toy with an invariant, looked at in transactions and in its table, and with a repair: an account has the units last told.

Messages of accounts whose name begins alike (`P-1`, `P-2`) also touch the account `P` of the party: it is not changed, but while
it is quarantined they wait.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import asyncpg

from shared import quarantine
from shared.contracts.base import Message
from shared.contracts.commerce import OrderCancelRequested
from shared.service import (
    Applicable,
    Broken,
    Check,
    Connection,
    Context,
    Corrected,
    Effect,
    IrreparableError,
    Local,
    Repair,
    Route,
    Service,
    Watched,
)
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.observe import eventually, query
from tests.integration.runtime.toy import FAULTS, State

UNITS = "an account has the units last told"
WATCHED = Watched(
    "account",
    {"account": "name"},
    {UNITS: "SELECT name, units, told ->> -1 AS told FROM account WHERE told <> '[]' AND split_part(told ->> -1, ': ', 2) <> units::text"},
    "SELECT split_part(t, ': ', 1)::bigint AS number, t AS message FROM account, jsonb_array_elements_text(told) AS t"
    " WHERE name = $1 AND split_part(t, ': ', 1)::bigint > $2",
)


class Accounts(dict[str, toy.Account]):
    """Those of a transaction, and as they were loaded."""

    def __init__(self, loaded: State) -> None:
        super().__init__(loaded)
        self.loaded = deepcopy(loaded)


def told(account: toy.Account) -> list[int]:
    """Units, from none on."""
    return [0, *(int(words.partition(": ")[2]) for words in account.told)]


def units(state: State, _told: Sequence[Message], _context: Context) -> Iterator[Broken]:
    """Of every account that has changed: by as many units as was told, and never down by more than the one unit of a request."""
    assert isinstance(state, Accounts)
    for name, account in state.items():
        was, steps = state.loaded[name], told(account)
        falls = min(after - before for before, after in zip([0, *steps], steps, strict=False))
        if account.units - was.units != steps[-1] - told(was)[-1] or falls < -1:
            yield Broken(f"account:{name}", f"units {was.units} → {account.units}, told {told(was)[-1]} → {steps[-1]}")


CHECKS: dict[str, Check[State]] = {UNITS: units}


async def load(tx: Connection, messages: Sequence[Applicable]) -> State:
    """The toy's; a repair locks like a remark."""
    loaded = [toy.Remark(key=message.key, text="") if isinstance(message, Repair) else message for message in messages]
    return Accounts(await toy.load(tx, loaded))


def repair(state: State, message: Repair, _context: Context) -> Iterable[Effect]:
    """What was told is right."""
    account = state[message.key]
    if not account.told:
        raise IrreparableError(f"{message.key} has told nothing: count it")
    assert isinstance(state, Accounts)
    right = told(account)[-1]
    if account.units != right:
        yield Corrected(f"units {account.units} → {right}")
    account.units = state.loaded[message.key].units = right


def miscount(real: Any) -> Any:
    """A bug: `miscount <request>` takes one unit more than it tells."""

    def handle(state: State, message: Any, context: Context) -> Iterable[Effect]:
        yield from real(state, message, context)
        if f"miscount {message.request}" in FAULTS:
            state[message.order].units -= 1

    return handle


def party(_state: State, message: Applicable) -> tuple[str, ...]:
    """The account of the party."""
    assert not isinstance(message, Local) or isinstance(message, toy.Remark)
    name, dash, _ = message.key.partition("-")
    return (f"account:{name}",) if dash else ()


ROUTES = {kind: replace(route, touches=party) for kind, route in toy.TOY.routes.items()}
CANCEL = ROUTES[OrderCancelRequested]
GUARDED: Service[State] = replace(
    toy.TOY,
    load=load,
    checks=CHECKS,
    watched=(WATCHED,),
    routes={
        **ROUTES,
        OrderCancelRequested: replace(CANCEL, handler=miscount(CANCEL.handler)),
        Repair: Route(repair, lambda message: message.aggregate),
    },
)


async def tamper(settings: Settings, sql: str) -> None:
    """Somebody changes a row by hand."""
    await query(settings, toy.TOY, sql)


async def quarantined(settings: Settings) -> list[str]:
    """Aggregates."""
    return [
        row[0] for row in await query(settings, toy.TOY, "SELECT aggregate FROM runtime.quarantine WHERE released_at IS NULL ORDER BY 1")
    ]


async def ask_repair(settings: Settings, aggregate: str, *, dry_run: bool = False, service: Service[Any] = toy.TOY) -> tuple[bool, str]:
    """An operator's wish; answers whether it is right now, and what was done."""
    connection = await asyncpg.connect(settings.dsn(service.name))
    try:
        number = await quarantine.request_repair(connection, aggregate, "operator", "somebody counted", dry_run=dry_run)
    finally:
        await connection.close()
    done = "SELECT repaired, result FROM runtime.repair WHERE id = $1 AND done_at IS NOT NULL"
    await eventually(lambda: query(settings, service, done, number))
    [(repaired, result)] = await query(settings, service, done, number)
    return repaired, result
