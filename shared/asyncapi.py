"""AsyncAPI 3.0 documents, generated from the contracts."""

from typing import Any

from pydantic import TypeAdapter

from shared.contracts import REGISTRY
from shared.contracts.base import MAX_ITEMS, ListedMessage, MessageType
from shared.service import Service

_HEADERS = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "maxLength": 300, "description": "Unique within ce_source; a repeat has no effect."},
        "ce_source": {"type": "string", "maxLength": 300},
        "ce_type": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time", "description": "When it happened."},
        "ce_causation": {"type": "string", "description": "The id of the message that caused this one."},
        "ce_actor": {"type": "string", "description": "Who stands behind it."},
    },
}


def schema(contract: MessageType) -> dict[str, Any]:
    """The JSON Schema of a message's data (of the whole list for listed ones)."""
    if issubclass(contract, ListedMessage):
        item = contract.model_json_schema()
        definitions = item.pop("$defs", {})
        items = {"type": "array", "items": item, "maxItems": MAX_ITEMS}
        whole = {"type": "object", "required": ["items"], "properties": {"items": items}}
        return {**whole, "$defs": definitions} if definitions else whole
    return TypeAdapter(contract).json_schema(mode="validation")


def document(service: Service[Any]) -> dict[str, Any]:
    """What the service receives and sends, as CloudEvents in Kafka's binary mode."""
    takes = [contract for contract in REGISTRY.values() if contract in service.routes and contract.TOPIC in service.topics]
    gives = [contract for contract in REGISTRY.values() if contract.TYPE.split(".")[1] == service.name]
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for contracts, action in ((takes, "receive"), (gives, "send")):
        for contract in contracts:
            name, topic = contract.TYPE, contract.TOPIC
            messages[name] = {
                "name": name,
                "summary": " ".join((contract.__doc__ or "").split()),
                "headers": _HEADERS,
                "payload": schema(contract),
                "x-level-of": list(contract.LEVEL),
            }
            channel = channels.setdefault(topic.name, {"address": topic.name, "description": f"Ordered by {topic.key}.", "messages": {}})
            channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
            operation = operations.setdefault(
                f"{action}.{topic.name}", {"action": action, "channel": {"$ref": f"#/channels/{topic.name}"}, "messages": []}
            )
            operation["messages"].append({"$ref": f"#/channels/{topic.name}/messages/{name}"})
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"Backorder: {service.name}", "version": "1", "description": "CloudEvents 1.0, Kafka binary mode, JSON data."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }
