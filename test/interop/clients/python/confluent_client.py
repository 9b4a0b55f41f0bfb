"""The client on confluent-kafka: librdkafka, AvroSerializer and AvroDeserializer."""

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

import common

ANSWER_SECONDS_MAX = 30


class Client:
    def __init__(self, plan):
        self.plan = plan
        self.kafka = {"bootstrap.servers": plan["brokers"]}
        self.registry = SchemaRegistryClient({"url": plan["registry"]})
        self.deserialize = AvroDeserializer(self.registry)
        self.serializers = {}
        # Without a partitioner named, librdkafka's own decides: CRC-32, which is not Foldstream's.
        partitioner = {"partitioner": plan["partitioner"]} if plan["partitioner"] else {}
        self.producer = Producer(self.kafka | partitioner)
        self.answers = self.consumer()
        partitions = self.partitions(self.answers, plan["replies"])
        for p in partitions:
            p.offset = self.answers.get_watermark_offsets(p)[1]
        self.answers.assign(partitions)

    def consumer(self, **more):
        return Consumer(self.kafka | {"group.id": "unused", "enable.auto.commit": False} | more)

    def partitions(self, consumer, topic, offset=0):
        return [TopicPartition(topic, p, offset) for p in consumer.list_topics(topic).topics[topic].partitions]

    def frame(self, name, data):
        if name not in self.serializers:
            conf = {"auto.register.schemas": False, "subject.name.strategy": record_subject_name_strategy}
            if self.plan["latest"]:
                conf["use.latest.version"] = True
            text = self.plan["schemas"].get(name) or self.registry.get_latest_version(name).schema.schema_str
            self.serializers[name] = AvroSerializer(self.registry, text, conf=conf)
        return self.serializers[name](data, SerializationContext(name, MessageField.VALUE))

    def send(self, step):
        failures = []
        self.producer.produce(
            step["topic"], key=step["key"], value=common.value_of(step, self.frame), headers=common.headers_of(step),
            on_delivery=lambda failure, _: failures.append(failure) if failure else None)
        self.producer.flush()
        if failures:
            raise KafkaException(failures[0])

    def answer(self, step):
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while time.monotonic() < deadline:
            message = self.answers.poll(1)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            reply = self.deserialize(message.value(), None)
            if common.is_answer(step, reply):
                return self.seen(message, reply)
        raise TimeoutError(f"no answer to {step['name']} within {ANSWER_SECONDS_MAX} s")

    def events(self, topic):
        consumer = self.consumer(**{"enable.partition.eof": True})
        partitions = self.partitions(consumer, topic, OFFSET_BEGINNING)
        consumer.assign(partitions)
        ends, found = 0, []
        while ends < len(partitions):
            message = consumer.poll(ANSWER_SECONDS_MAX)
            if message is None:
                raise TimeoutError(f"{topic} was not read to its end")
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                ends += 1
            elif message.value() is not None and message.key().decode().startswith(self.plan["prefix"]):
                found.append(self.seen(message, self.deserialize(message.value(), None)))
        consumer.close()
        return found

    def seen(self, message, data):
        return common.record(
            message.topic(), message.partition(), message.offset(), message.key(), message.headers(), data)


def main():
    plan = common.read_plan()
    client = Client(plan)
    replies = {}
    for step in plan["steps"]:
        client.send(step)
        if step["answered"]:
            replies[step["name"]] = client.answer(step)
    events = [e for topic in plan["topics"] for e in client.events(topic)]
    client.answers.close()
    common.report(replies, events)


main()
