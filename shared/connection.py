"""Mends aiokafka's connection for uvloop, on which a write to a transport that has just been closed raises RuntimeError.

asyncio's own loop raises nothing there, and aiokafka expects no such error: its fetcher, its sender or its coordination ends for
good, and the process goes on with a consumer that reads nothing, or a producer that sends nothing, and hardly says so.
"""

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


def _mended(self: Any, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def mend() -> None:
    """From now on a connection that breaks while it is written to is a broken connection, as on any loop."""
    AIOKafkaConnection.send = _mended
