"""What the Python clients share: the plan that the test hands over, and how results are reported.

A plan names broker, registry and a list of requests; see clients/README.md. Nothing here knows
Kafka or Avro: each client brings its own.
"""

import json
import sys
from datetime import datetime, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_plan():
    return json.load(sys.stdin)


def headers_of(step):
    return [(name, value.encode()) for name, value in step["headers"].items()]


def value_of(step, frame):
    """The request's value. frame(type, data) encodes in Confluent framing."""
    if "raw" in step:
        return bytes.fromhex(step["raw"])
    if "events" not in step:
        return frame(step["type"], step["data"])
    items = []
    for event in step["events"]:
        framed = frame(event["type"], event["data"])
        items.append({
            "type": event["type"], "id": event["id"], "time": event["time"],
            "schemaId": int.from_bytes(framed[1:5], "big"), "data": framed[5:],
        })
    return frame("foldstream.Append", {"events": items})


def plain(value):
    """A decoded value as JSON can hold it; a timestamp is its microseconds."""
    if isinstance(value, datetime):
        delta = value - EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def record(topic, partition, offset, key, headers, data):
    return {
        "topic": topic, "partition": partition, "offset": offset, "key": key.decode(),
        "headers": {name: value.decode() for name, value in headers}, "data": plain(data),
    }


def is_answer(step, reply):
    return reply["requestId"] == step["headers"]["ce_id"] and reply["attempt"] == step["headers"]["fs-attempt"]


def report(replies, events):
    json.dump({"replies": replies, "events": events}, sys.stdout)
    print()
