"""The runtime on the real broker and database, nothing going wrong."""

from shared.contracts.orders import ORDERS_DEMAND, DemandSet
from shared.settings import Settings
from tests.integration.runtime import toy
from tests.integration.runtime.broker import messages, publish
from tests.integration.runtime.observe import becomes, drained, eventually, query, units


async def test_effects_happen_once_however_often_a_message_comes(settings: Settings) -> None:
    await toy.prepare(settings)
    orders = [(toy.order(f"A{n}", 1, 2), f"m{n}") for n in range(50)]
    async with toy.running(settings) as runtime:
        await publish(settings, *orders, *orders)
        await becomes(lambda: units(runtime), {f"A{n}": 3 for n in range(50)})
        await publish(settings, *orders, (toy.order("last", 1), "last"))
        await becomes(lambda: units(runtime), {**{f"A{n}": 3 for n in range(50)}, "last": 1})
        await eventually(lambda: drained(runtime))
        await becomes(lambda: query(settings, toy.TOY, "SELECT count(*) FROM account WHERE reminded"), [(51,)])
    levels = [level for level in await messages(settings, ORDERS_DEMAND) if isinstance(level, DemandSet)]
    assert len(levels) == 51
    assert all(level.causation for level in levels)
