"""Reads what the local mail server kept (`smtp_sink`), for the command line and for tests."""

from dataclasses import dataclass, replace
from email import message_from_bytes
from email.header import Header, decode_header, make_header
from email.message import Message
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A mail, once per Message-ID; `copies` = how often it arrived (more than 1 only after a crash of its sender)."""

    message_id: str
    to: str
    subject: str
    body: str
    order: str
    copies: int = 1


def read_mails(maildir: Path) -> list[StoredMail]:
    """All mails in the order of their first arrival."""
    mails: dict[str, StoredMail] = {}
    for path in sorted(maildir.glob("*.eml")):
        message = message_from_bytes(path.read_bytes())
        identity = message["Message-ID"] or path.name
        if identity in mails:
            mails[identity] = replace(mails[identity], copies=mails[identity].copies + 1)
        else:
            to, subject, order = (_text(message[name] or "") for name in ("To", "Subject", "X-Backorder-Order"))
            mails[identity] = StoredMail(identity, to, subject, _body(message), order)
    return list(mails.values())


def _text(header: str | Header) -> str:
    """A header's value as a person reads it."""
    return str(make_header(decode_header(header)))


def _body(message: Message) -> str:
    content = message.get_payload(decode=True)
    return content.decode(errors="replace").replace("\r\n", "\n") if isinstance(content, bytes) else ""
