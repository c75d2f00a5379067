"""A connection that breaks while it is written to is a broken connection: on uvloop too, where aiokafka expects nothing of the kind."""

import asyncio

import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from shared import connection


async def _written_to_once_reset(host: str, port: int) -> BaseException | None:
    """What a write says right after the connection was reset, before anybody has noticed."""
    broken = AIOKafkaConnection(host, port)
    await broken.connect()
    try:
        broken._writer.transport.abort()
        await asyncio.sleep(0)  # the loop has closed it, and has told nobody yet
        await broken.send(MetadataRequest([]))
    except (RuntimeError, KafkaConnectionError) as error:
        return error
    finally:
        broken.close()
    return None


def test_a_write_to_a_connection_that_was_reset_says_that_it_is_broken(kafka_bootstrap: str) -> None:
    host, _, port = kafka_bootstrap.rpartition(":")
    connection.mend()
    assert isinstance(uvloop.run(_written_to_once_reset(host, int(port))), KafkaConnectionError)
