// Appends an event, sends a command, reads the answers and the events: BROKERS=… REGISTRY=… node shop.mjs
import { randomUUID } from 'node:crypto'
import { SchemaRegistry } from '@kafkajs/confluent-schema-registry'
import { Kafka, logLevel, Partitioners } from 'kafkajs'

const kafka = new Kafka({ brokers: process.env.BROKERS.split(','), logLevel: logLevel.ERROR })
const registry = new SchemaRegistry({ host: process.env.REGISTRY })
const admin = kafka.admin()
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner }) // murmur2, as Java's
const consumers = []

// Reads a topic from its start, in a group of its own; resolves once it has partitions.
async function read(topic, eachMessage) {
  const consumer = kafka.consumer({ groupId: `shop-client-${randomUUID()}`, maxWaitTimeInMs: 100 })
  consumers.push(consumer)
  await consumer.subscribe({ topic, fromBeginning: true })
  const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve))
  await consumer.run({ eachMessage })
  await joined
}

const asked = new Map() // by request id
async function answered({ message }) {
  const reply = await registry.decode(message.value)
  asked.get(reply.requestId)?.(reply)
}

// Sends one request and returns its answer. None in time: ask again with the same request id.
async function ask(category, stream, type, data, request, expected = 'any') {
  const value = await registry.encode(await registry.getLatestSchemaId(type), data)
  const headers = { ce_id: request, ce_type: type, 'fs-expected-version': expected, 'fs-reply-to': 'shop.replies' }
  const answer = new Promise((resolve) => asked.set(request, resolve))
  await producer.send({ topic: `shop.${category}.commands`, messages: [{ key: stream, value, headers }] })
  return answer
}

// Reads all events of a category, from the start of the log to its end.
async function events(category) {
  const topic = `shop.${category}.events`
  const ends = (await admin.fetchTopicOffsets(topic)).filter(({ low, high }) => low !== high)
  const behind = new Map(ends.map(({ partition, high }) => [partition, BigInt(high)]))
  const found = []
  await new Promise((resolve) => read(topic, async ({ partition, message: { key, headers, value, offset } }) => {
    if (!headers['fs-control']) { // which are notes of the writer to itself
      found.push([key.toString(), Number(headers.ce_sequence), await registry.decode(value)])
    }
    if (BigInt(offset) + 1n >= behind.get(partition)) behind.delete(partition)
    if (behind.size === 0) resolve()
  }))
  return found
}

await Promise.all([admin.connect(), producer.connect(), read('shop.replies', answered)])
const invoice = `invoice-${randomUUID()}`
const order = `order-${randomUUID()}`
const issued = { customer: 'c-7', total: 12900, dueAt: Date.UTC(2026, 11, 31) * 1000 }
const place = { customer: 'c-7', totalCents: 12900 }
console.log(await ask('invoice', invoice, 'invoice.Issued', issued, `issue-${invoice}`, 'none')) // accepted
console.log(await ask('invoice', invoice, 'invoice.Paid', { amount: 12900 }, `pay-${invoice}`, '7')) // conflict
console.log(await ask('order', order, 'order.Place', place, `place-${order}`)) // accepted
console.log(await ask('order', order, 'order.Place', place, `place-${order}`)) // duplicate: it counts once
for (const [stream, version, data] of [...await events('invoice'), ...await events('order')]) {
  if (stream === invoice || stream === order) console.log(stream, version, data)
}
await Promise.all([admin, producer, ...consumers].map((each) => each.disconnect()))
