// The client on kafkajs, with its registry client, which uses avsc.
import { randomUUID } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { SchemaRegistry } from '@kafkajs/confluent-schema-registry'
import { Kafka, logLevel, Partitioners } from 'kafkajs'

const ANSWER_MS_MAX = 30_000

const plan = JSON.parse(await text(process.stdin))
const kafka = new Kafka({ brokers: plan.brokers.split(','), logLevel: logLevel.ERROR })
const registry = new SchemaRegistry({ host: plan.registry })
const admin = kafka.admin()
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
const consumers = []

// Reads a topic from its start in a group of its own: kafkajs knows no other way.
async function read(topic, eachMessage) {
  const consumer = kafka.consumer({ groupId: `${plan.group}-${randomUUID()}`, maxWaitTimeInMs: 100 })
  consumers.push(consumer)
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ eachMessage })
}

function seen({ topic, partition, message }, data) {
  const headers = Object.fromEntries(Object.entries(message.headers).map(([name, value]) => [name, value.toString()]))
  return { topic, partition, offset: Number(message.offset), key: message.key.toString(), headers, data }
}

function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${ANSWER_MS_MAX} ms`)), ANSWER_MS_MAX)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const ids = new Map()
async function frame(type, data) {
  if (!ids.has(type)) ids.set(type, await registry.getLatestSchemaId(type))
  return registry.encode(ids.get(type), data)
}

async function valueOf(step) {
  if (step.raw !== undefined) return Buffer.from(step.raw, 'hex')
  if (!step.events) return frame(step.type, step.data)
  const events = []
  for (const { type, id, time, data } of step.events) {
    const framed = await frame(type, data)
    events.push({ type, id, time, schemaId: framed.readInt32BE(1), data: framed.subarray(5) })
  }
  return frame('foldstream.Append', { events })
}

const waiting = new Map() // by request id and attempt
async function answered(delivery) {
  const reply = await registry.decode(delivery.message.value)
  waiting.get(`${reply.requestId} ${reply.attempt}`)?.(seen(delivery, reply))
}

async function send(step) {
  const answer = new Promise((resolve) => waiting.set(`${step.headers.ce_id} ${step.headers['fs-attempt']}`, resolve))
  const message = { key: step.key, value: await valueOf(step), headers: step.headers }
  await producer.send({ topic: step.topic, messages: [message] })
  return step.answered ? within(answer, `the answer to ${step.name}`) : undefined
}

async function events(topic) {
  const offsets = (await admin.fetchTopicOffsets(topic)).filter(({ low, high }) => low !== high)
  const ends = new Map(offsets.map(({ partition, high }) => [partition, BigInt(high)]))
  const found = []
  await within(new Promise((resolve, reject) => {
    read(topic, async (delivery) => {
      const { partition, message } = delivery
      if (message.value !== null && message.key.toString().startsWith(plan.prefix)) {
        found.push(seen(delivery, await registry.decode(message.value)))
      }
      if (BigInt(message.offset) + 1n >= ends.get(partition)) ends.delete(partition)
      if (ends.size === 0) resolve()
    }).catch(reject)
  }), `reading ${topic}`)
  return found
}

await Promise.all([admin.connect(), producer.connect(), read(plan.replies, answered)])
const result = { replies: {}, events: [] }
for (const step of plan.steps) {
  const reply = await send(step)
  if (reply) result.replies[step.name] = reply
}
for (const topic of plan.topics) result.events.push(...await events(topic))
await Promise.all([admin, producer, ...consumers].map((each) => each.disconnect()))
console.log(JSON.stringify(result))
