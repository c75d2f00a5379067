"""A mail server that keeps every mail as a file and delivers none: `python -m deploy.local.smtp_sink --port P --maildir DIR`.
With `--refuse "451 not now"` it keeps none either, and answers each with that.

A mail is one file `<arrival number>-<Message-ID>.eml`, written under another name and then renamed, before the server says
250: a kill of the sink loses no mail that it took and leaves no half of one that it did not (a power cut may).
"""

import argparse
import asyncio
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "127.0.0.1"
MAX_BYTES = 10_000_000
_SUFFIX = ".eml"
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([^>\r\n]*)>", re.IGNORECASE | re.MULTILINE)


class Maildir:
    """The handler of aiosmtpd that stores what arrives. Numbers go on where an earlier run stopped."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._number = max((int(path.name.partition("-")[0]) for path in directory.glob(f"*{_SUFFIX}")), default=0)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        """Keeps the mail, then says so."""
        content = envelope.content
        if not isinstance(content, bytes):
            return "554 only bytes are kept here"
        self._number += 1
        found = _MESSAGE_ID.search(content)
        name = re.sub(r"[^A-Za-z0-9@._-]", "_", found[1].decode("ascii", "replace"))[:120] if found else "none"
        final = self.directory / f"{self._number:08}-{name}{_SUFFIX}"
        unfinished = final.with_suffix(".part")
        unfinished.write_bytes(content)
        os.replace(unfinished, final)  # noqa: PTH105  (Path.replace is the same but slower)
        return "250 kept"


@dataclass(frozen=True)
class Refusing:
    """The handler of aiosmtpd that takes no mail."""

    answer: str

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        """Says so."""
        return self.answer


async def serve(handler: Maildir | Refusing, port: int) -> asyncio.Server:
    """Listens on loopback; port 0 takes a free one. For tests and local runs: it talks to everybody on the machine."""
    return await asyncio.get_running_loop().create_server(lambda: server(handler), HOST, port)


def server(handler: object) -> SMTP:
    """The protocol of one connection."""
    return SMTP(handler, hostname="smtp-sink.local", enable_SMTPUTF8=True, data_size_limit=MAX_BYTES, timeout=3600)


async def _run(handler: Maildir | Refusing, port: int) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with await serve(handler, port):
        await stop.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Keeps every mail as a file and delivers none.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    parser.add_argument("--refuse", metavar="ANSWER", help="the answer to every mail, with its code")
    parser.add_argument("--nice", type=int, default=10, help="a mail server would be another machine's work: here the services go first")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    handler = Refusing(arguments.refuse) if arguments.refuse else Maildir(arguments.maildir)
    uvloop.run(_run(handler, arguments.port))


if __name__ == "__main__":
    main()
