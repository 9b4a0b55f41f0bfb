"""The client on aiokafka, which is Python all through, with fastavro and the registry by hand."""

import asyncio
import io
import json
import urllib.request

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

import common

ANSWER_SECONDS_MAX = 30


class Registry:
    """Reads schemas by HTTP, as any program can."""

    def __init__(self, url):
        self.url = url
        self.latest, self.by_id = {}, {}

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def frame(self, name, data):
        if name not in self.latest:
            found = self.get(f"/subjects/{name}/versions/latest")
            self.latest[name] = found["id"], fastavro.parse_schema(json.loads(found["schema"]))
        schema_id, schema = self.latest[name]
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, data)
        return b"\x00" + schema_id.to_bytes(4, "big") + out.getvalue()

    def decode(self, value):
        assert value[0] == 0, f"framing: got byte {value[0]}, want 0"
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id not in self.by_id:
            self.by_id[schema_id] = fastavro.parse_schema(json.loads(self.get(f"/schemas/ids/{schema_id}")["schema"]))
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self.by_id[schema_id], None)


async def partitions(producer, topic):
    return [TopicPartition(topic, p) for p in await producer.partitions_for(topic)]


def seen(message, data):
    return common.record(message.topic, message.partition, message.offset, message.key, message.headers, data)


async def answer(consumer, registry, step):
    async for message in consumer:
        reply = registry.decode(message.value)
        if common.is_answer(step, reply):
            return seen(message, reply)


async def read_events(plan, registry, producer, topic):
    consumer = AIOKafkaConsumer(bootstrap_servers=plan["brokers"], auto_offset_reset="earliest")
    await consumer.start()
    try:
        assigned = await partitions(producer, topic)
        ends = await consumer.end_offsets(assigned)
        consumer.assign(assigned)
        found = []
        while any([await consumer.position(p) < ends[p] for p in assigned]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                found += [seen(m, registry.decode(m.value)) for m in messages
                          if m.value is not None and m.key.decode().startswith(plan["prefix"])]
        return found
    finally:
        await consumer.stop()


async def main():
    plan = common.read_plan()
    registry = Registry(plan["registry"])
    producer = AIOKafkaProducer(bootstrap_servers=plan["brokers"])
    answers = AIOKafkaConsumer(bootstrap_servers=plan["brokers"])
    await producer.start()
    await answers.start()
    try:
        assigned = await partitions(producer, plan["replies"])
        ends = await answers.end_offsets(assigned)
        answers.assign(assigned)
        for partition, end in ends.items():
            answers.seek(partition, end)  # before the library looks for a position of its own
        replies = {}
        for step in plan["steps"]:
            await producer.send_and_wait(
                step["topic"], key=step["key"].encode(), value=common.value_of(step, registry.frame),
                headers=common.headers_of(step))
            if step["answered"]:
                replies[step["name"]] = await asyncio.wait_for(answer(answers, registry, step), ANSWER_SECONDS_MAX)
        events = [e for topic in plan["topics"] for e in await read_events(plan, registry, producer, topic)]
        common.report(replies, events)
    finally:
        await producer.stop()
        await answers.stop()


asyncio.run(main())
