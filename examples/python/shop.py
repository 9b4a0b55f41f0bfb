"""Appends an event, sends a command, reads the answers and the events: BROKERS=… REGISTRY=… python shop.py"""
import os
import uuid
from datetime import datetime, timezone

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

registry = SchemaRegistryClient({"url": os.environ["REGISTRY"]})
deserialize = AvroDeserializer(registry)
kafka = {"bootstrap.servers": os.environ["BROKERS"]}
producer = Producer(kafka | {"partitioner": "murmur2_random"})  # as Java's; librdkafka's own costs a detour
answers = Consumer(kafka | {"group.id": "none", "enable.auto.commit": False})
ours = TopicPartition("shop.replies", 0)
ours.offset = answers.get_watermark_offsets(ours)[1]  # its end
answers.assign([ours])


def serialize(topic, record, value):
    schema = registry.get_latest_version(record).schema.schema_str  # the project registers schemas, a client none
    conf = {"auto.register.schemas": False, "use.latest.version": True, "subject.name.strategy": record_subject_name_strategy}
    return AvroSerializer(registry, schema, conf=conf)(value, SerializationContext(topic, MessageField.VALUE))


def ask(category, stream, record, value, request, expected="any"):
    """Sends one request and returns its answer. None in time: ask again with the same request id."""
    topic = f"shop.{category}.commands"
    producer.produce(topic, key=stream, value=serialize(topic, record, value), headers={
        "ce_id": request, "ce_type": record, "fs-expected-version": expected, "fs-reply-to": "shop.replies/0"})
    producer.flush()
    while message := answers.poll(10):
        reply = deserialize(message.value(), None)
        if reply["requestId"] == request:
            return reply


def events(category):
    """Reads all events of a category, from the start of the log to its end."""
    consumer = Consumer(kafka | {"group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True})
    topic = f"shop.{category}.events"
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    ends = 0
    while ends < len(partitions):
        message = consumer.poll(10)
        if message.error():
            ends += message.error().code() == KafkaError._PARTITION_EOF
        elif "fs-control" not in (headers := dict(message.headers())):  # which are notes of the writer to itself
            yield message.key().decode(), int(headers["ce_sequence"]), deserialize(message.value(), None)
    consumer.close()


invoice, order = f"invoice-{uuid.uuid4()}", f"order-{uuid.uuid4()}"
issued = {"customer": "c-7", "total": 12900, "dueAt": datetime(2026, 12, 31, tzinfo=timezone.utc)}
place = {"customer": "c-7", "totalCents": 12900}
print(ask("invoice", invoice, "invoice.Issued", issued, f"issue-{invoice}", expected="none"))  # accepted
print(ask("invoice", invoice, "invoice.Paid", {"amount": 12900}, f"pay-{invoice}", expected="7"))  # conflict
print(ask("order", order, "order.Place", place, f"place-{order}"))  # accepted
print(ask("order", order, "order.Place", place, f"place-{order}"))  # duplicate: it counts once
for stream, version, data in [*events("invoice"), *events("order")]:
    if stream in (invoice, order):
        print(stream, version, data)
