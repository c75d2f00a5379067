"""The sender against the real local mail server: every mail once, refusals, a server that drops connections, a kill of the server."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.local import smtp_sink
from deploy.local.mailbox import StoredMail, read_mails
from services.notifier import sender
from services.notifier.sender import send_queued
from shared.contracts.orders import LineAllocated, LineShipped
from shared.service import Local
from tests.integration.notifier.conftest import Notifier
from tests.unit.notifier.world import DIGEST, NOON, accepted, change

FROM = "Backorder <orders@backorder.example>"


class Moody(smtp_sink.Maildir):
    """The local mail server in a bad mood."""

    drops = 0

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any) -> str:  # noqa: N802
        if address.startswith("unknown"):
            return f"550 5.1.1 <{address}> no such user"
        if address.startswith("full") and not any(self.directory.glob("*.full")):
            (self.directory / "once.full").touch()
            return "452 4.2.2 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = await super().handle_DATA(server, session, envelope)
        if self.drops:
            self.drops -= 1
            assert isinstance(server.transport, asyncio.WriteTransport)
            server.transport.abort()
        return answer


@pytest.fixture
async def moody(tmp_path: Path) -> AsyncIterator[tuple[Moody, str]]:
    """A moody mail server and its URL."""
    moody = Moody(tmp_path)
    server = await asyncio.get_running_loop().create_server(lambda: smtp_sink.server(moody), smtp_sink.HOST, 0)
    yield moody, f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def write_mails(notifier: Notifier, orders: Sequence[str], **customer: str) -> None:
    """Each order gets one mail queued."""
    await notifier.hears(*(accepted(order, **customer) for order in orders))
    await notifier.hears(*(LineAllocated(order=order, at=NOON, lines=(change(1, allocated=1),)) for order in orders))
    await notifier.passes(DIGEST)


async def send_until(notifier: Notifier, url: str, statuses: dict[str, int]) -> None:
    """Runs the loop until the mails' statuses are these."""
    stopping = asyncio.Event()

    async def tell(messages: Sequence[Local]) -> None:
        await notifier.transactions.tell(messages)
        rows = await notifier.pool.fetch("SELECT status, count(*) FROM mail GROUP BY status")
        if dict(rows) == statuses:
            stopping.set()

    await asyncio.wait_for(send_queued(notifier.pool, url, FROM, tell, stopping), 30)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch):
    """Pauses are of no interest here, but that they are asked for is."""
    monkeypatch.setattr(sender, "pause", lambda _: DIGEST / 100_000)


async def test_every_mail_arrives_once_and_is_told(notifier: Notifier, moody: tuple[Moody, str], tmp_path: Path):
    orders = [f"A-{number}" for number in range(130)]
    await write_mails(notifier, orders)
    await send_until(notifier, moody[1], {"sent": 130})
    mails = read_mails(tmp_path)
    assert sorted(mail.order for mail in mails) == sorted(orders)
    assert all(mail.copies == 1 for mail in mails)
    assert mails[0] == StoredMail(
        mails[0].message_id, "ann@example.org", f"Your order {mails[0].order} is being prepared", mails[0].body, mails[0].order
    )
    assert "SKU-1: 1 unit\n" in mails[0].body
    assert len(await notifier.published()) == 130
    assert await notifier.violations() == {}


async def test_a_refused_recipient_fails_for_good_without_holding_up_others(notifier: Notifier, moody: tuple[Moody, str], tmp_path: Path):
    await write_mails(notifier, ["A-1"], email="unknown@example.org")
    await write_mails(notifier, ["B-1"])
    await write_mails(notifier, ["C-1"], email="a(b)@example.org")
    await send_until(notifier, moody[1], {"sent": 1, "failed": 2})
    assert [mail.order for mail in read_mails(tmp_path)] == ["B-1"]
    errors = dict(await notifier.pool.fetch("SELECT order_id, last_error FROM mail WHERE status = 'failed'"))
    assert errors == {"A-1": "550 5.1.1 <<address>> no such user", "C-1": "not an address that mail can be sent to"}


async def test_a_full_mailbox_is_tried_again(notifier: Notifier, moody: tuple[Moody, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("services.notifier.store.pause", lambda _: DIGEST / 100_000)
    await write_mails(notifier, ["A-1"], email="full@example.org")
    await send_until(notifier, moody[1], {"sent": 1})
    assert await notifier.pool.fetchval("SELECT attempts FROM mail") == 2
    assert len(read_mails(tmp_path)) == 1


async def test_a_dropped_connection_loses_nothing_and_a_repeat_is_recognisable(
    notifier: Notifier, moody: tuple[Moody, str], tmp_path: Path
):
    moody[0].drops = 3  # the server keeps the mail, but its answer is lost: nobody can tell whether it arrived
    orders = [f"A-{number}" for number in range(20)]
    await write_mails(notifier, orders)
    await send_until(notifier, moody[1], {"sent": 20})
    mails = read_mails(tmp_path)
    assert sorted(mail.order for mail in mails) == sorted(orders)
    assert sum(mail.copies - 1 for mail in mails) == 3


async def test_mails_of_one_order_arrive_in_their_order(notifier: Notifier, moody: tuple[Moody, str], tmp_path: Path):
    await write_mails(notifier, ["A-1"])
    await notifier.hears(LineShipped(order="A-1", at=NOON, lines=(change(1, shipped=1, version=2),), shipment="P-1"))
    await notifier.passes(DIGEST)
    await send_until(notifier, moody[1], {"sent": 2})
    assert [mail.subject for mail in read_mails(tmp_path)] == ["Your order A-1 is being prepared", "Your order A-1 has shipped"]


async def test_a_cancelled_loop_finishes_its_round(notifier: Notifier, moody: tuple[Moody, str], tmp_path: Path):
    await write_mails(notifier, [f"A-{number}" for number in range(20)])
    begun = asyncio.Event()

    async def tell(messages: Sequence[Local]) -> None:
        begun.set()
        await asyncio.sleep(0)
        await notifier.transactions.tell(messages)

    loop = asyncio.create_task(send_queued(notifier.pool, moody[1], FROM, tell, asyncio.Event()))
    await asyncio.wait_for(begun.wait(), 10)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    arrived = len(read_mails(tmp_path))
    assert arrived > 0
    assert await notifier.pool.fetchval("SELECT count(*) FROM mail WHERE status = 'sent'") == arrived


async def test_the_server_may_be_away_and_come_back(notifier: Notifier, tmp_path: Path, unused_tcp_port: int):
    await write_mails(notifier, ["A-1", "A-2"])
    sending = asyncio.create_task(send_until(notifier, f"smtp://127.0.0.1:{unused_tcp_port}", {"sent": 2}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.local.smtp_sink", "--port", str(unused_tcp_port), "--maildir", str(tmp_path / "mail")
    )  # fmt: skip
    try:
        await sending
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert len(read_mails(tmp_path / "mail")) == 2
    assert not list((tmp_path / "mail").glob("*.part"))


def test_numbers_of_arrival_go_on_after_a_restart(tmp_path: Path):
    for _ in range(2):
        envelope = Envelope()
        envelope.content = b"Message-ID: <../x@y>\r\n\r\nHi\r\n"
        assert asyncio.run(smtp_sink.Maildir(tmp_path).handle_DATA(None, None, envelope)) == "250 kept"  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001-.._x@y.eml", "00000002-.._x@y.eml"]
    assert [mail.copies for mail in read_mails(tmp_path)] == [2]
