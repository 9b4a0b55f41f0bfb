import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The client on Apache Kafka's own client library and Apache Avro, with the registry by hand. */
public final class Client implements AutoCloseable {
    private static final Duration ANSWER_MAX = Duration.ofSeconds(30);
    private static final ObjectMapper JSON = new ObjectMapper();

    private final JsonNode plan;
    private final HttpClient http = HttpClient.newHttpClient();
    private final Map<String, Registered> latest = new HashMap<>();
    private final Map<Integer, Schema> byId = new HashMap<>();
    private final KafkaProducer<String, byte[]> producer;
    private final KafkaConsumer<String, byte[]> answers;

    private record Registered(int id, Schema schema) {}

    public static void main(String[] args) throws Exception {
        try (var client = new Client(JSON.readTree(System.in))) {
            System.out.println(JSON.writeValueAsString(client.run()));
        }
    }

    private Client(JsonNode plan) {
        this.plan = plan;
        producer = new KafkaProducer<>(kafka(), new StringSerializer(), new ByteArraySerializer());
        answers = consumer();
        var partitions = partitions(answers, plan.get("replies").asText());
        answers.assign(partitions);
        answers.endOffsets(partitions).forEach(answers::seek);
    }

    @Override
    public void close() {
        producer.close();
        answers.close();
    }

    private ObjectNode run() throws Exception {
        ObjectNode result = JSON.createObjectNode(), replies = result.putObject("replies");
        for (JsonNode step : plan.get("steps")) {
            var record = new ProducerRecord<>(text(step, "topic"), text(step, "key"), value(step));
            step.get("headers").properties().forEach(
                    h -> record.headers().add(h.getKey(), h.getValue().asText().getBytes(UTF_8)));
            producer.send(record).get();
            if (step.get("answered").asBoolean()) replies.set(text(step, "name"), answer(step));
        }
        var events = result.putArray("events");
        for (JsonNode topic : plan.get("topics")) events.addAll(events(topic.asText()));
        return result;
    }

    private ObjectNode answer(JsonNode step) throws Exception {
        JsonNode headers = step.get("headers");
        for (var deadline = Instant.now().plus(ANSWER_MAX); Instant.now().isBefore(deadline);) {
            for (var message : answers.poll(Duration.ofSeconds(1))) {
                GenericRecord reply = decode(message.value());
                if (reply.get("requestId").toString().equals(text(headers, "ce_id"))
                        && reply.get("attempt").toString().equals(text(headers, "fs-attempt"))) {
                    return seen(message, reply);
                }
            }
        }
        throw new IllegalStateException("no answer to " + text(step, "name") + " within " + ANSWER_MAX);
    }

    private List<ObjectNode> events(String topic) throws Exception {
        try (var consumer = consumer()) {
            var partitions = partitions(consumer, topic);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            var found = new ArrayList<ObjectNode>();
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (var message : consumer.poll(Duration.ofMillis(200))) {
                    if (message.value() != null && message.key().startsWith(text(plan, "prefix"))) {
                        found.add(seen(message, decode(message.value())));
                    }
                }
            }
            return found;
        }
    }

    private byte[] value(JsonNode step) throws Exception {
        if (step.has("raw")) return HexFormat.of().parseHex(text(step, "raw"));
        if (!step.has("events")) return frame(text(step, "type"), step.get("data"));
        Schema append = latest("foldstream.Append").schema(), item = append.getField("events").schema().getElementType();
        var items = new ArrayList<GenericRecord>();
        for (JsonNode event : step.get("events")) {
            ByteBuffer framed = ByteBuffer.wrap(frame(text(event, "type"), event.get("data")));
            items.add(new GenericRecordBuilder(item)
                    .set("type", text(event, "type")).set("id", text(event, "id")).set("time", event.get("time").asLong())
                    .set("schemaId", framed.getInt(1)).set("data", framed.position(5).slice()).build());
        }
        return frame("foldstream.Append", new GenericRecordBuilder(append).set("events", items).build());
    }

    private byte[] frame(String type, JsonNode data) throws Exception {
        Schema schema = latest(type).schema();
        var record = new GenericRecordBuilder(schema);
        data.properties().forEach(f -> record.set(f.getKey(), avro(schema.getField(f.getKey()).schema(), f.getValue())));
        return frame(type, record.build());
    }

    private byte[] frame(String type, GenericRecord record) throws Exception {
        var out = new ByteArrayOutputStream();
        out.write(ByteBuffer.allocate(5).put((byte) 0).putInt(latest(type).id()).array());
        var encoder = EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<GenericRecord>(record.getSchema()).write(record, encoder);
        encoder.flush();
        return out.toByteArray();
    }

    private GenericRecord decode(byte[] value) throws Exception {
        if (value[0] != 0) throw new IOException("framing: got byte " + value[0] + ", want 0");
        int id = ByteBuffer.wrap(value).getInt(1);
        if (!byId.containsKey(id)) byId.put(id, parse(registry("/schemas/ids/" + id)));
        var decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(byId.get(id)).read(null, decoder);
    }

    private Registered latest(String type) throws Exception {
        if (!latest.containsKey(type)) {
            JsonNode found = registry("/subjects/" + type + "/versions/latest");
            latest.put(type, new Registered(found.get("id").asInt(), parse(found)));
        }
        return latest.get(type);
    }

    private JsonNode registry(String path) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(text(plan, "registry") + path)).timeout(ANSWER_MAX).build();
        var answer = http.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new IOException(path + " answered " + answer.statusCode() + ": " + answer.body());
        return JSON.readTree(answer.body());
    }

    private static Schema parse(JsonNode registered) {
        return new Schema.Parser().parse(text(registered, "schema"));
    }

    /** A value of the plan as Avro's generic writer takes it. */
    private static Object avro(Schema schema, JsonNode value) {
        return switch (schema.getType()) {
            case LONG -> value.asLong();
            case STRING -> value.asText();
            case ENUM -> new GenericData.EnumSymbol(schema, value.asText());
            default -> throw new IllegalArgumentException("the plan has no values of type " + schema.getType());
        };
    }

    private static ObjectNode seen(ConsumerRecord<String, byte[]> record, GenericRecord data) throws IOException {
        ObjectNode node = JSON.createObjectNode().put("topic", record.topic()).put("partition", record.partition())
                .put("offset", record.offset()).put("key", record.key());
        ObjectNode headers = node.putObject("headers");
        record.headers().forEach(h -> headers.put(h.key(), new String(h.value(), UTF_8)));
        return node.set("data", JSON.readTree(data.toString()));
    }

    private Map<String, Object> kafka() {
        return Map.of("bootstrap.servers", text(plan, "brokers"));
    }

    private KafkaConsumer<String, byte[]> consumer() {
        return new KafkaConsumer<>(kafka(), new StringDeserializer(), new ByteArrayDeserializer());
    }

    private static List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer, String topic) {
        return consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
    }

    private static String text(JsonNode node, String field) {
        return node.get(field).asText();
    }
}
