"""Kafka's request to elect leaders, which aiokafka does not speak."""

from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

PREFERRED = 0


class _Response(Response):  # type: ignore[misc]
    API_KEY = 43
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "results",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("error_code", Int16), ("error_message", String("utf-8")))),
            ),
        ),
    )


class _Struct(RequestStruct):  # type: ignore[misc]
    API_KEY = 43
    API_VERSION = 1
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("election_type", Int8),
        ("topic_partitions", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
        ("timeout_ms", Int32),
    )


class ElectLeaders(Request[_Struct]):  # type: ignore[misc]
    """Make the preferred replica of each of these partitions of a topic its leader."""

    API_KEY = 43

    def __init__(self, topic: str, partitions: list[int], timeout_ms: int) -> None:
        self._fields = (PREFERRED, [(topic, partitions)], timeout_ms)

    def build(self, request_struct_class: type[Any]) -> Any:
        """The request as it goes over the wire."""
        return request_struct_class(*self._fields)
