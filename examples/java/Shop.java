// Appends an event, sends a command, reads the answers and the events: BROKERS=… REGISTRY=… java -cp 'libs/*' Shop.java
import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.*;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.time.*;
import java.util.*;
import org.apache.avro.Schema;
import org.apache.avro.generic.*;
import org.apache.avro.io.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Shop {
    static final Map<String, Object> KAFKA = Map.of("bootstrap.servers", System.getenv("BROKERS"));
    static final TopicPartition REPLIES = new TopicPartition("shop.replies", 0);
    static final Producer<String, byte[]> producer =
            new KafkaProducer<>(KAFKA, new StringSerializer(), new ByteArraySerializer());
    static final Consumer<String, byte[]> answers = consumer(), log = consumer();

    public static void main(String[] args) throws Exception {
        answers.assign(List.of(REPLIES));
        answers.seek(REPLIES, answers.endOffsets(List.of(REPLIES)).get(REPLIES));
        String invoice = "invoice-" + UUID.randomUUID(), order = "order-" + UUID.randomUUID();
        long due = Instant.parse("2026-12-31T00:00:00Z").toEpochMilli() * 1000;
        Map<String, Object> issued = Map.of("customer", "c-7", "total", 12900L, "dueAt", due);
        Map<String, Object> place = Map.of("customer", "c-7", "totalCents", 12900L);
        System.out.println(ask("invoice", invoice, "invoice.Issued", issued, "issue-" + invoice, "none")); // accepted
        System.out.println(ask("invoice", invoice, "invoice.Paid", Map.of("amount", 12900L), "pay-" + invoice, "7")); // conflict
        System.out.println(ask("order", order, "order.Place", place, "place-" + order, "any")); // accepted
        System.out.println(ask("order", order, "order.Place", place, "place-" + order, "any")); // duplicate: it counts once
        for (String category : List.of("invoice", "order"))
            for (var e : events(category))
                if (e.key().equals(invoice) || e.key().equals(order))
                    System.out.println(e.key() + " " + header(e, "ce_sequence") + " " + deserialize(e.value()));
    }

    /** Sends one request and returns its answer. None in time: ask again with the same request id. */
    static GenericRecord ask(String category, String stream, String type, Map<String, Object> data, String request,
            String expected) throws Exception {
        var record = new ProducerRecord<>("shop." + category + ".commands", stream, serialize(type, data));
        Map.of("ce_id", request, "ce_type", type, "fs-expected-version", expected, "fs-reply-to", "shop.replies/0")
                .forEach((name, value) -> record.headers().add(name, value.getBytes(UTF_8)));
        producer.send(record).get();
        for (var deadline = Instant.now().plusSeconds(10); Instant.now().isBefore(deadline);)
            for (var message : answers.poll(Duration.ofSeconds(1))) {
                GenericRecord reply = deserialize(message.value());
                if (reply.get("requestId").toString().equals(request)) return reply;
            }
        return null;
    }

    /** Reads all events of a category, from the start of the log to its end. */
    static List<ConsumerRecord<String, byte[]>> events(String category) {
        var partitions = log.partitionsFor("shop." + category + ".events").stream()
                .map(p -> new TopicPartition(p.topic(), p.partition())).toList();
        var ends = log.endOffsets(partitions);
        log.assign(partitions);
        log.seekToBeginning(partitions);
        var found = new ArrayList<ConsumerRecord<String, byte[]>>();
        while (partitions.stream().anyMatch(p -> log.position(p) < ends.get(p)))
            for (var record : log.poll(Duration.ofMillis(100)))
                if (header(record, "fs-control") == null) found.add(record); // else a note of the writer to itself
        return found;
    }

    /** Avro by the latest schema that the project registered, behind a zero byte and the schema's id. */
    static byte[] serialize(String type, Map<String, Object> data) throws Exception {
        JsonNode latest = registry("/subjects/" + type + "/versions/latest");
        var record = new GenericRecordBuilder(schema(latest));
        data.forEach(record::set);
        var out = new ByteArrayOutputStream();
        out.write(ByteBuffer.allocate(5).put((byte) 0).putInt(latest.get("id").asInt()).array());
        var encoder = EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<GenericRecord>(schema(latest)).write(record.build(), encoder);
        encoder.flush();
        return out.toByteArray();
    }

    static GenericRecord deserialize(byte[] value) throws Exception {
        Schema writer = schema(registry("/schemas/ids/" + ByteBuffer.wrap(value).getInt(1)));
        return new GenericDatumReader<GenericRecord>(writer)
                .read(null, DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null));
    }

    static Schema schema(JsonNode registered) {
        return new Schema.Parser().parse(registered.get("schema").asText());
    }

    static JsonNode registry(String path) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("REGISTRY") + path)).build();
        return new ObjectMapper().readTree(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
    }

    static Consumer<String, byte[]> consumer() {
        return new KafkaConsumer<>(KAFKA, new StringDeserializer(), new ByteArrayDeserializer());
    }

    static String header(ConsumerRecord<?, ?> record, String name) {
        var header = record.headers().lastHeader(name);
        return header == null ? null : new String(header.value(), UTF_8);
    }
}
