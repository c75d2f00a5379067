"""The loop that sends queued mails over SMTP and tells the service what became of them.

Between the server's answer and the commit that records it, a kill repeats mails: at most one round, recognisable by their
Message-ID. It is the one effect of the system that SMTP does not let us have exactly once.
"""

import asyncio
import re
from binascii import b2a_qp
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from email.header import Header
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import structlog
from aiosmtplib import SMTP, SMTPDataError, SMTPException, SMTPNotSupported, SMTPRecipientsRefused

from services.notifier import store
from services.notifier.domain import pause
from services.notifier.handlers import MailFailed, MailSent
from services.notifier.rendering import one_line
from services.notifier.store import Queued
from shared.service import Local, Running

if TYPE_CHECKING:
    import asyncpg


CONNECTIONS = 16
"""A mail is some four questions and answers, one after the other: a distant or busy server is waited for by so many side by side."""
ROUND_MAILS, ROUND_SECONDS = 50, 0.5
"""What was sent is recorded after so many mails or so long, whichever comes first: what a kill can repeat."""
IDLE_SECONDS = 0.1
GRACE_SECONDS = 5.0

_PART = r"[^\s@()<>\[\]:;,\\\"\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_ADDRESS = re.compile(f"{_PART}@{_PART}")
"""No comments, quotes or groups: mail would go to another address than the one that was recorded."""

log = structlog.get_logger(__name__)

Tell = Callable[[Sequence[Local]], Awaitable[None]]


async def send_mails(running: Running) -> None:
    """Sends the service's mails until it stops."""
    settings = running.settings
    await send_queued(running.pool, settings.smtp_url, settings.mail_from, running.tell, running.stopping)


async def send_queued(pool: "asyncpg.Pool[Any]", smtp_url: str, mail_from: str, tell: Tell, stopping: asyncio.Event) -> None:
    """Sends queued mails in rounds until `stopping` is set; after a broken connection with growing pauses (wall time)."""
    connections = [connection(smtp_url) for _ in range(CONNECTIONS)]
    failures = 0
    try:
        while not stopping.is_set():
            mails = await store.queued(pool, ROUND_MAILS)
            if not mails:
                await _wait(stopping, IDLE_SECONDS)
                continue
            outcomes, broken = await _finished(_sent_and_told(connections, mails, mail_from, tell))
            failures = failures + 1 if broken and not outcomes else 0
            if broken:
                log.warning("mail_server_away", error=str(broken), failures=failures)
                await _wait(stopping, pause(max(failures, 1)).total_seconds())
    finally:
        for client in connections:
            client.close()


Round = tuple[list[Local], Exception | None]
"""What became of the mails that were answered, and what broke a connection."""


async def _finished(work: Awaitable[Round]) -> Round:
    """Lets a round come to its end even when the loop is cancelled, so that a graceful stop repeats no mail."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=GRACE_SECONDS)
        task.cancel()
        raise


async def _sent_and_told(connections: Sequence[SMTP], mails: Sequence[Queued], mail_from: str, tell: Tell) -> Round:
    outcomes, broken = await send_round(connections, mails, mail_from)
    if outcomes:
        await tell(outcomes)
    return outcomes, broken


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def connection(smtp_url: str) -> SMTP:
    """A client for `smtp://[user:password@]host[:port]`, not connected yet; it uses STARTTLS where the server offers it."""
    url = urlsplit(smtp_url)
    if url.scheme != "smtp" or not url.hostname:
        raise ValueError("the mail server's URL must look like smtp://[user:password@]host[:port]")
    user, password = (unquote(part) if part else None for part in (url.username, url.password))
    return SMTP(hostname=url.hostname, port=url.port, username=user, password=password, timeout=30)


async def send_round(connections: Sequence[SMTP], mails: Sequence[Queued], mail_from: str) -> Round:
    """Sends mails side by side over the connections; begins none after ROUND_SECONDS."""
    left, outcomes = deque(mails), list[Local]()
    ends = asyncio.get_running_loop().time() + ROUND_SECONDS

    async def work(client: SMTP) -> Exception | None:
        try:
            if not client.is_connected:
                await client.connect()
            while left and asyncio.get_running_loop().time() < ends:
                outcomes.append(await send(client, left.popleft(), mail_from))
        except (SMTPException, OSError, TimeoutError) as error:
            client.close()
            return error
        return None

    errors = await asyncio.gather(*(work(client) for client in connections[: len(mails)]))
    return outcomes, next((error for error in errors if error), None)


async def send(client: SMTP, mail: Queued, mail_from: str) -> Local:
    """Sends one mail. Answers what the server said of it; raises when the connection or the server itself is at fault."""
    if not _ADDRESS.fullmatch(mail.recipient):
        return MailFailed(order=mail.order, number=mail.number, reason="not an address that mail can be sent to", permanent=True)
    options = () if mail.recipient.isascii() else ("SMTPUTF8",)
    try:
        await client.sendmail(_sender(mail_from).address, mail.recipient, content(mail, mail_from), mail_options=options)
    except SMTPRecipientsRefused as refused:
        return _refusal(mail, refused.recipients[0].code, refused.recipients[0].message)
    except SMTPDataError as refused:
        return _refusal(mail, refused.code, refused.message)
    except SMTPNotSupported:
        return MailFailed(order=mail.order, number=mail.number, reason="the mail server takes ASCII addresses only", permanent=True)
    return MailSent(order=mail.order, number=mail.number)


def _refusal(mail: Queued, code: int, text: str) -> MailFailed:
    """5xx is for good, 4xx for now. The address, which servers like to repeat, is left out: the reason is published."""
    reason = f"{code} {one_line(text.replace(mail.recipient, '<address>'))}"
    return MailFailed(order=mail.order, number=mail.number, reason=reason[:500], permanent=code >= 500)


class _Sender(NamedTuple):
    """Whom mails are from, for the envelope and for people."""

    address: str
    header: str


@lru_cache
def _sender(mail_from: str) -> _Sender:
    name, address = parseaddr(mail_from)
    return _Sender(address, formataddr((name, address)))


def content(mail: Queued, mail_from: str) -> bytes:
    """The mail as it goes over the wire, the same bytes at every attempt.

    Written out here, since `email.message` decodes what looks like an encoded word in a header's value, line breaks and all:
    an order called `=?utf-8?q?x=0D=0ABcc:…?=` would add a recipient.
    """
    headers = {
        "Subject": _encoded(mail.subject),
        "From": _sender(mail_from).header,
        "To": mail.recipient,
        "Message-ID": mail.message_id,
        "Date": format_datetime(mail.created_at),
        "X-Backorder-Order": _encoded(mail.order),
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "quoted-printable",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + b2a_qp(mail.body.encode()).replace(b"\n", b"\r\n")


def _encoded(text: str) -> str:
    """A header's value on one line or properly folded, that no reader can take for anything but this text."""
    line = one_line(text)
    return line if line.isascii() and "=?" not in line else Header(line, "utf-8").encode(linesep="\r\n")
