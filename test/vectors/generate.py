#!/usr/bin/env python3
"""Writes the vectors of this folder from the specifications alone.

Nothing here calls Foldstream. Avro, its parsing canonical form and fingerprint, UUID version 5,
SHA-256 and the layout of each value are written out after docs/wire-format.md, by the standard
library of Python only. vectors_test.go then holds Foldstream's Go code to the files.

    python3 test/vectors/generate.py            write the files
    python3 test/vectors/generate.py --check    fail when a file differs from what would be written
"""

import hashlib
import json
import pathlib
import struct
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# ---------------------------------------------------------------- Avro, by hand


def varint(n):
    """Avro's int and long: zigzag, then seven bits a byte, the lowest first."""
    z = (n << 1) ^ (n >> 63)
    out = bytearray()
    while True:
        low = z & 0x7F
        z >>= 7
        if z == 0:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def blob(data):
    return varint(len(data)) + data


def encode(schema, value):
    """The binary encoding of value. Arrays and maps go in one block, maps by the order of their keys."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict):
        return encode(kind, value)
    if kind in ("int", "long"):
        return varint(value)
    if kind == "string":
        return blob(value.encode())
    if kind == "bytes":
        return blob(bytes.fromhex(value))
    if kind == "enum":
        return varint(schema["symbols"].index(value))
    if kind == "array":
        return (varint(len(value)) if value else b"") + b"".join(encode(schema["items"], v) for v in value) + b"\x00"
    if kind == "map":
        entries = b"".join(blob(k.encode()) + encode(schema["values"], value[k]) for k in sorted(value, key=str.encode))
        return (varint(len(value)) if value else b"") + entries + b"\x00"
    if kind == "record":
        return b"".join(encode(f["type"], value[f["name"]]) for f in schema["fields"])
    raise ValueError(f"no rule for {kind}")


PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def canonical(schema, namespace=""):
    """Parsing Canonical Form (Avro specification): full names, no attributes that do not matter
    for parsing, the order name, type, fields, symbols, items, values, size, no white space."""
    if isinstance(schema, list):
        return "[" + ",".join(canonical(s, namespace) for s in schema) + "]"
    if isinstance(schema, str):
        if schema in PRIMITIVES or "." in schema or not namespace:
            return json.dumps(schema)
        return json.dumps(namespace + "." + schema)
    kind = schema["type"]
    if isinstance(kind, (dict, list)) or kind in PRIMITIVES:
        return canonical(kind, namespace)
    parts = []
    if "name" in schema:
        full = schema["name"]
        if "." not in full:
            inherited = schema.get("namespace", namespace)
            full = inherited + "." + full if inherited else full
        namespace = full.rpartition(".")[0]
        parts.append('"name":' + json.dumps(full))
    parts.append('"type":' + json.dumps(kind))
    if "fields" in schema:
        parts.append('"fields":[' + ",".join(
            '{"name":' + json.dumps(f["name"]) + ',"type":' + canonical(f["type"], namespace) + "}" for f in schema["fields"]) + "]")
    if "symbols" in schema:
        parts.append('"symbols":[' + ",".join(json.dumps(s) for s in schema["symbols"]) + "]")
    for key in ("items", "values"):
        if key in schema:
            parts.append(f'"{key}":' + canonical(schema[key], namespace))
    if "size" in schema:
        parts.append('"size":%d' % schema["size"])
    return "{" + ",".join(parts) + "}"


RABIN_EMPTY = 0xC15D213AA4D7A795


def rabin(data):
    """CRC-64-AVRO, the 64-bit Rabin fingerprint of the Avro specification."""
    table = []
    for i in range(256):
        fp = i
        for _ in range(8):
            fp = (fp >> 1) ^ (RABIN_EMPTY if fp & 1 else 0)
        table.append(fp)
    fp = RABIN_EMPTY
    for b in data:
        fp = (fp >> 8) ^ table[(fp ^ b) & 0xFF]
    return fp


class Schema:
    def __init__(self, path, schema_id, kind):
        self.path, self.id, self.kind = path, schema_id, kind
        self.version = int(path.rpartition(".v")[2].removesuffix(".avsc"))
        self.json = json.loads((ROOT / path).read_text())
        self.canonical = canonical(self.json)
        self.fingerprint = rabin(self.canonical.encode())
        self.type = self.json["namespace"] + "." + self.json["name"]

    def body(self, value):
        return encode(self.json, value)

    def confluent(self, body):
        return b"\x00" + struct.pack(">i", self.id) + body

    def single_object(self, body):
        return b"\xc3\x01" + struct.pack("<Q", self.fingerprint) + body

    def described(self):
        return {"type": self.type, "version": self.version, "kind": self.kind, "id": self.id, "path": self.path,
                "canonical": self.canonical, "fingerprint": "%016x" % self.fingerprint}


ISSUED = Schema("examples/invoice/schemas/invoice/Issued.v1.avsc", 7, "event")
PAID = Schema("examples/invoice/schemas/invoice/Paid.v1.avsc", 8, "event")
APPEND = Schema("schemas/avro/foldstream/Append.v1.avsc", 1, "system")
REPLY = Schema("schemas/avro/foldstream/Reply.v1.avsc", 2, "system")
APPEND2 = Schema("schemas/avro/foldstream/Append.v2.avsc", 3, "system")
BATCH = Schema("schemas/avro/foldstream/AppendBatch.v1.avsc", 4, "system")

ISSUED_VALUE = {"customer": "c-17", "total": 12900, "currency": "EUR", "dueAt": 1775001600000000}
PAID_VALUE = {"amount": 12900, "method": "transfer", "reference": "RF18 5390"}
UMLAUT_VALUE = {"customer": "Müller & Söhne 株式会社", "total": -1, "currency": "", "dueAt": 0}

# ---------------------------------------------------------------- ids

NAMESPACE = uuid.UUID("6f1d3c1e-5b0a-5c8e-9a53-0f7f6a1f2c11")
LETTER_NAMESPACE = uuid.UUID("0f2e9a0e-7f2c-5d56-8a55-6c0a3d7b1e77")


def uuid5(namespace, name):
    """RFC 9562, section 5.5, over bytes: SHA-1 of namespace and name, version and variant set."""
    digest = bytearray(hashlib.sha1(namespace.bytes + name).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def event_name(category, stream, command, index):
    return b"\x00".join([category.encode(), stream.encode(), command.encode(), str(index).encode()])


def event_id(category, stream, command, index):
    return uuid5(NAMESPACE, event_name(category, stream, command, index))


def reply_name(request):
    return request.encode() + b"\x00reply"


def reply_id(request):
    return uuid5(NAMESPACE, reply_name(request))


def letter_name(consumer, topic_id, partition, offset):
    return b"\x00".join([consumer.encode(), topic_id.encode(), str(partition).encode(), str(offset).encode()])


# ---------------------------------------------------------------- partitions


def murmur2(data):
    """murmur2 as Kafka's Java client has it, as unsigned 32 bits. murmur2.json, whose values come
    from that client, is the check of this function: see main."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i:i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key, partitions):
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def check_murmur2():
    known = json.loads((HERE / "murmur2.json").read_text())
    for v in known["vectors"]:
        key = bytes.fromhex(v["keyHex"])
        if murmur2(key) != v["murmur2"] & 0xFFFFFFFF or [partition_of(key, n) for n in known["partitionCounts"]] != v["partitions"]:
            sys.exit("murmur2 of %r differs from the Java client's" % v["text"])


# ---------------------------------------------------------------- fs-command-hash


def command_hash(typ, expected, fingerprint, payload):
    text = struct.pack(">I", len(typ.encode())) + typ.encode()
    text += struct.pack(">I", len(expected.encode())) + expected.encode()
    text += struct.pack(">Q", fingerprint) + payload
    return text, hashlib.sha256(text).digest()[:16].hex()


# ---------------------------------------------------------------- the files


def framing():
    vectors = []
    for name, schema, value in (("an invoice", ISSUED, ISSUED_VALUE), ("text beyond ASCII, a negative number", ISSUED, UMLAUT_VALUE),
                                ("an enum", PAID, PAID_VALUE)):
        body = schema.body(value)
        vectors.append({"name": name, "type": schema.type, "value": value, "body": body.hex(),
                        "confluent": schema.confluent(body).hex(), "singleObject": schema.single_object(body).hex()})
    sound = ISSUED.body(ISSUED_VALUE)
    return {
        "about": "Values in both framings. Confluent: 00, the schema id as 4 bytes big-endian, the Avro body. Single-object: c3 01, the CRC-64-AVRO of the schema's parsing canonical form as 8 bytes little-endian, the Avro body. fingerprint is that CRC as a number, 16 hex digits. refused: values that are answered invalid with this code when they come as invoice.Issued, by a registry that has exactly these schemas.",
        "schemas": [ISSUED.described(), PAID.described(), APPEND.described(), REPLY.described(),
                    APPEND2.described(), BATCH.described()],
        "vectors": vectors,
        "refused": [
            {"name": "empty", "value": "", "code": "frame"},
            {"name": "no magic byte", "value": "09" + sound.hex(), "code": "frame"},
            {"name": "the Confluent header is cut", "value": "00000000", "code": "frame"},
            {"name": "a negative schema id", "value": "00ffffffff" + sound.hex(), "code": "frame"},
            {"name": "c3 without 01", "value": "c302" + ISSUED.single_object(sound).hex()[4:], "code": "frame"},
            {"name": "the single-object header is cut", "value": "c30100112233", "code": "frame"},
            {"name": "a schema id that nobody registered", "value": "0000000063" + sound.hex(), "code": "unknown-schema"},
            {"name": "a fingerprint that nobody registered, since its bytes are big-endian",
             "value": "c301" + struct.pack(">Q", ISSUED.fingerprint).hex() + sound.hex(), "code": "unknown-schema"},
            {"name": "another type's schema", "value": PAID.confluent(PAID.body(PAID_VALUE)).hex(), "code": "type-mismatch"},
            {"name": "the body is cut", "value": ISSUED.confluent(sound[:-1]).hex(), "code": "payload"},
            {"name": "a byte follows the body", "value": ISSUED.confluent(sound + b"\x00").hex(), "code": "payload"},
            {"name": "a string that is not UTF-8", "value": ISSUED.confluent(b"\x02\xff" + sound[5:]).hex(), "code": "payload"},
            {"name": "an integer in more bytes than it needs", "value": ISSUED.confluent(sound[:5] + b"\x82\x00" + sound[8:]).hex(), "code": "payload"},
            {"name": "a string that claims 2^31 bytes", "value": ISSUED.confluent(varint(1 << 31)).hex(), "code": "payload"},
        ],
    }


def ids():
    commands = [
        ("workflow", "receipt-phase", "0b0f9a1e-7f52-4a53-8d3b-6f0a3f2b1c55", 0),
        ("workflow", "receipt-phase", "0b0f9a1e-7f52-4a53-8d3b-6f0a3f2b1c55", 1),
        ("workflow", "receipt-phase", "0b0f9a1e-7f52-4a53-8d3b-6f0a3f2b1c55", 10),
        ("order", "Müller/株式会社 7", "cmd 1", 0),
        ("a", "b", "c", 999),
    ]
    requests = ["0b0f9a1e-7f52-4a53-8d3b-6f0a3f2b1c55", "cmd 1", "é"]
    letters = [("ingest", "00112233445566778899aabbccddeeff", 3, 41), ("view.workflow_list.v1", "00" * 16, 0, 0)]
    return {
        "about": "UUID version 5 (RFC 9562): SHA-1 over the 16 bytes of the namespace and the name. nameHex are the bytes of the name; its parts are joined by one NUL byte.",
        "namespace": str(NAMESPACE),
        "letterNamespace": str(LETTER_NAMESPACE),
        "events": [{"category": c, "streamId": s, "commandId": i, "index": n, "nameHex": event_name(c, s, i, n).hex(),
                    "id": event_id(c, s, i, n)} for c, s, i, n in commands],
        "replies": [{"requestId": r, "nameHex": reply_name(r).hex(), "id": reply_id(r)} for r in requests],
        "letters": [{"consumer": c, "topicId": t, "partition": p, "offset": o, "nameHex": letter_name(c, t, p, o).hex(),
                     "id": uuid5(LETTER_NAMESPACE, letter_name(c, t, p, o))} for c, t, p, o in letters],
    }


def hashes():
    issued = ISSUED.body(ISSUED_VALUE)
    several = APPEND.body(APPEND_VALUE)
    cases = [
        ("no expected version is any", ISSUED, "", "any", issued),
        ("any", ISSUED, "any", "any", issued),
        ("none", ISSUED, "none", "none", issued),
        ("0 is none", ISSUED, "0", "none", issued),
        ("000 is none", ISSUED, "000", "none", issued),
        ("exists", ISSUED, "exists", "exists", issued),
        ("a version", ISSUED, "41", "41", issued),
        ("leading zeros do not count", ISSUED, "0041", "41", issued),
        ("another payload", ISSUED, "any", "any", ISSUED.body(UMLAUT_VALUE)),
        ("an append", APPEND, "1", "1", several),
        ("an append of version 2", APPEND2, "1", "1", APPEND2.body(APPEND2_VALUE)),
    ]
    out = []
    for name, schema, header, normal, payload in cases:
        text, digest = command_hash(schema.type, normal, schema.fingerprint, payload)
        out.append({"name": name, "type": schema.type, "expectedVersionHeader": header, "expectedVersion": normal,
                    "fingerprint": "%016x" % schema.fingerprint, "payload": payload.hex(), "hashed": text.hex(), "hash": digest})
    return {
        "about": "fs-command-hash: SHA-256 over `hashed`, cut to its first 16 bytes, hex. hashed: length of the type (4 bytes, big-endian), type, length of the expected version's normal text (4 bytes, big-endian), that text, the writer schema's fingerprint (8 bytes, big-endian), the Avro body without framing.",
        "vectors": out,
    }


APPEND_VALUE = {"events": [
    {"type": "invoice.Issued", "id": "", "time": 0, "schemaId": ISSUED.id, "data": ISSUED.body(ISSUED_VALUE).hex()},
    {"type": "invoice.Paid", "id": "pay-1", "time": 1772442600123456, "schemaId": PAID.id, "data": PAID.body(PAID_VALUE).hex()},
]}


def appends():
    cases = [
        ("two events: the first with the request's time and a derived id", APPEND_VALUE),
        ("one event", {"events": APPEND_VALUE["events"][1:]}),
        ("no event, which is answered invalid with code empty-append", {"events": []}),
    ]
    return {
        "about": "foldstream.Append: the Avro body (data is hex here) and the value in Confluent framing under schema id %d." % APPEND.id,
        "schema": APPEND.described(),
        "vectors": [{"name": n, "append": v, "body": APPEND.body(v).hex(), "value": APPEND.confluent(APPEND.body(v)).hex()} for n, v in cases],
    }


def with_metadata(item, metadata):
    return {**item, "metadata": metadata}


METADATA = {"tenant": "eu-west", "müller": "Grüße", "a": ""}
APPEND2_VALUE = {"events": [with_metadata(APPEND_VALUE["events"][0], METADATA), with_metadata(APPEND_VALUE["events"][1], {})]}


def appends_2():
    cases = [
        ("two events, the first with metadata, whose entries are in the order of their names", APPEND2_VALUE),
        ("one event without metadata", {"events": APPEND2_VALUE["events"][1:]}),
        ("no event, which is answered invalid with code empty-append", {"events": []}),
    ]
    return {
        "about": "foldstream.Append version 2, as append.json. refused: metadata that is answered invalid with code header; header is the name at fault, * for all of them.",
        "schema": APPEND2.described(),
        "vectors": [{"name": n, "append": v, "body": APPEND2.body(v).hex(), "value": APPEND2.confluent(APPEND2.body(v)).hex()} for n, v in cases],
        "refused": [
            {"name": "a name of CloudEvents", "metadata": {"ce_tenant": "x"}, "header": "ce_tenant"},
            {"name": "a name of ours", "metadata": {"fs-command-id": "x"}, "header": "fs-command-id"},
            {"name": "a letter's name", "metadata": {"dlq.id": "x"}, "header": "dlq.id"},
            {"name": "content-type", "metadata": {"content-type": "x"}, "header": "content-type"},
            {"name": "traceparent", "metadata": {"traceparent": "x"}, "header": "traceparent"},
            {"name": "an empty name", "metadata": {"": "x"}, "header": ""},
            {"name": "a name with a NUL", "metadata": {"a\x00b": "x"}, "header": "a\x00b"},
            {"name": "a name of 256 bytes", "metadata": {"n" * 256: "x"}, "header": "n" * 256},
            {"name": "a value of 4097 bytes", "metadata": {"note": "x" * 4097}, "header": "note"},
            {"name": "65 entries", "metadata": {"n%02d" % i: "" for i in range(65)}, "header": "*"},
        ],
    }


def batches():
    first = {"category": "invoice", "streamId": "2026-0041", "id": "req-1", "expectedVersion": "none", "events": APPEND2_VALUE["events"]}
    second = {"category": "invoice", "streamId": "Müller/7", "id": "", "expectedVersion": "", "events": APPEND2_VALUE["events"][1:]}
    cases = [("two requests", {"requests": [first, second]}), ("no request", {"requests": []})]
    return {
        "about": "foldstream.AppendBatch: the Avro body (data is hex here) and the value in Confluent framing under schema id %d." % BATCH.id,
        "schema": BATCH.described(),
        "vectors": [{"name": n, "batch": v, "body": BATCH.body(v).hex(), "value": BATCH.confluent(BATCH.body(v)).hex()} for n, v in cases],
    }


def reply(**fields):
    whole = {"requestId": "", "outcome": "unknown", "category": "invoice", "streamId": "2026-0041", "firstVersion": 0, "lastVersion": 0,
             "actualVersion": 0, "partition": -1, "offset": -1, "code": "", "message": "", "errors": [], "attempt": ""}
    whole.update(fields)
    return whole


def replies():
    cases = [
        ("accepted", reply(requestId="req-1", outcome="accepted", firstVersion=1, lastVersion=2, partition=5, offset=1042)),
        ("accepted without an event", reply(requestId="req-2", outcome="accepted", partition=5)),
        ("duplicate", reply(requestId="req-1", outcome="duplicate", firstVersion=1, lastVersion=2, partition=5, offset=1042, attempt="2")),
        ("conflict", reply(requestId="req-3", outcome="conflict", actualVersion=2)),
        ("rejected", reply(requestId="req-4", outcome="rejected", code="already-paid", message="the invoice is paid — nothing is due")),
        ("invalid", reply(requestId="req-5", outcome="invalid", code="header", message="header ce_type: is missing",
                          errors=["header ce_type: is missing", "header ce_time: want a time as in RFC 3339, got \"noon\""])),
        ("unknown", reply(requestId="req-6", outcome="unknown", message="ask again")),
    ]
    return {
        "about": "foldstream.Reply: the Avro body and the value in Confluent framing under schema id %d." % REPLY.id,
        "schema": REPLY.described(),
        "vectors": [{"name": n, "reply": v, "body": REPLY.body(v).hex(), "value": REPLY.confluent(REPLY.body(v)).hex()} for n, v in cases],
    }


def texts():
    return {
        "about": "Texts of headers. normal is how Foldstream writes what it read. Refused texts make a request invalid with code header.",
        "expectedVersions": {
            "accepted": [
                {"text": "", "normal": "any", "holdsAt": [0, 1, 7]},
                {"text": "any", "normal": "any", "holdsAt": [0, 1, 7]},
                {"text": "none", "normal": "none", "holdsAt": [0]},
                {"text": "0", "normal": "none", "holdsAt": [0]},
                {"text": "exists", "normal": "exists", "holdsAt": [1, 7]},
                {"text": "1", "normal": "1", "holdsAt": [1]},
                {"text": "007", "normal": "7", "holdsAt": [7]},
                {"text": "999999999999999999", "normal": "999999999999999999", "holdsAt": []},
            ],
            "tried": [0, 1, 7],
            "refused": ["Any", "NONE", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "1_000", "one", "１", "9999999999999999999"],
        },
        "times": {
            "accepted": [
                {"text": "2026-03-02T09:10:00Z", "normal": "2026-03-02T09:10:00Z", "unixMicros": 1772442600000000},
                {"text": "2026-03-02T09:10:00.123456Z", "normal": "2026-03-02T09:10:00.123456Z", "unixMicros": 1772442600123456},
                {"text": "2026-03-02T10:10:00+01:00", "normal": "2026-03-02T09:10:00Z", "unixMicros": 1772442600000000},
                {"text": "2026-03-02T03:40:00.500-05:30", "normal": "2026-03-02T09:10:00.5Z", "unixMicros": 1772442600500000},
                {"text": "2026-03-02T09:10:00.000000789Z", "normal": "2026-03-02T09:10:00.000000789Z", "unixMicros": 1772442600000000},
                {"text": "0001-01-01T00:00:00Z", "normal": "0001-01-01T00:00:00Z", "unixMicros": -62135596800000000},
                {"text": "9999-12-31T23:59:59.999999Z", "normal": "9999-12-31T23:59:59.999999Z", "unixMicros": 253402300799999999},
            ],
            "refused": ["", "noon", "2026-03-02", "2026-03-02T09:10:00", "2026-03-02 09:10:00Z", "2026-02-30T00:00:00Z", "1772442600",
                        "0000-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01"],
        },
        "replyTo": {
            "accepted": [
                {"text": "fs.replies", "topic": "fs.replies", "partition": -1},
                {"text": "fs.replies/3", "topic": "fs.replies", "partition": 3},
                {"text": "fs.replies.billing/0", "topic": "fs.replies.billing", "partition": 0},
            ],
            "refused": ["", "/3", "fs.replies/", "fs.replies/-1", "fs.replies/3/4", "fs.replies/2147483648", "fs replies", ".", ".."],
        },
        "origins": {
            "accepted": [{"text": "00112233445566778899aabbccddeeff/3/41", "topicId": "00112233445566778899aabbccddeeff", "partition": 3, "offset": 41}],
            "refused": ["", "fs.invoice.commands/3/41", "00112233445566778899aabbccddeeff/3", "00112233445566778899aabbccddeeff/-1/41", "0011/3/41"],
        },
    }


def record(key, value, headers):
    return {"key": key, "value": value, "headers": [[k, v] for k, v in headers]}


def headers():
    """A request, the events that it becomes, and the answer."""
    topic_id = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
    place = {"namespace": "acme", "category": "invoice", "commandsTopic": "acme.invoice.commands", "commandsTopicId": topic_id,
             "partitions": 12, "partition": partition_of(b"2026-0041", 12), "offset": 900, "timestampMillis": 1772442601000}
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body, paid = ISSUED.body(ISSUED_VALUE), PAID.body(PAID_VALUE)

    def events_of(request_id, schema, expected, payload):
        return command_hash(schema.type, expected, schema.fingerprint, payload)[1]

    def event(version, eid, typ, time, request_id, digest, correlation, *more):
        return [("ce_id", eid), ("ce_type", typ), ("ce_source", "/acme/invoice"), ("ce_specversion", "1.0"), ("ce_time", time),
                ("ce_subject", "2026-0041"), ("content-type", "application/avro"), ("ce_sequence", str(version)),
                ("ce_correlationid", correlation), ("ce_causationid", request_id), ("fs-command-id", request_id),
                ("fs-command-hash", digest), ("fs-command-offset", "900"), *more]

    full = record("2026-0041", ISSUED.single_object(body).hex(), [
        ("ce_id", "req-1"), ("ce_type", "invoice.Issued"), ("ce_source", "/billing"), ("ce_specversion", "1.0"),
        ("ce_time", "2026-03-02T10:10:00.250+01:00"), ("ce_subject", "of no meaning"), ("content-type", "avro/binary"),
        ("ce_correlationid", "conversation-9"), ("ce_causationid", "click-3"), ("ce_userid", "alice"), ("traceparent", traceparent),
        ("fs-expected-version", "none"), ("fs-reply-to", "acme.replies/3"), ("fs-reply-key", "billing-7"),
        ("fs-dedupe-until", "2026-03-02T20:00:00Z"), ("fs-attempt", "2"),
        ("fs-origin", topic_id + "/11/77"), ("tenant-hint", "eu-west")])
    full_event = record("2026-0041", ISSUED.confluent(body).hex(), event(
        1, "req-1", "invoice.Issued", "2026-03-02T09:10:00.25Z", "req-1", events_of("req-1", ISSUED, "none", body), "conversation-9",
        ("ce_userid", "alice"), ("traceparent", traceparent), ("fs-dedupe-until", "2026-03-02T20:00:00Z"),
        ("fs-origin", topic_id + "/11/77"), ("tenant-hint", "eu-west")))
    full_reply = [("ce_id", reply_id("req-1")), ("ce_type", "foldstream.Reply"), ("ce_source", "/acme/ingest"), ("ce_specversion", "1.0"),
                  ("ce_subject", "2026-0041"), ("content-type", "application/avro"), ("ce_correlationid", "conversation-9"),
                  ("ce_causationid", "req-1"), ("traceparent", traceparent), ("fs-attempt", "2")]

    least = record("2026-0041", ISSUED.confluent(body).hex(), [("ce_id", "req-2"), ("ce_type", "invoice.Issued"), ("fs-reply-to", "acme.replies")])
    least_event = record("2026-0041", ISSUED.confluent(body).hex(), event(
        1, "req-2", "invoice.Issued", "2026-03-02T09:10:01Z", "req-2", events_of("req-2", ISSUED, "any", body), "req-2"))
    least_reply = [("ce_id", reply_id("req-2")), ("ce_type", "foldstream.Reply"), ("ce_source", "/acme/ingest"), ("ce_specversion", "1.0"),
                   ("ce_subject", "2026-0041"), ("content-type", "application/avro"), ("ce_correlationid", "req-2"), ("ce_causationid", "req-2")]

    append_body = APPEND.body(APPEND_VALUE)
    several = record("2026-0041", APPEND.confluent(append_body).hex(), [
        ("ce_id", "req-3"), ("ce_type", "foldstream.Append"), ("ce_time", "2026-03-02T09:00:00Z"), ("fs-expected-version", "none")])
    digest = events_of("req-3", APPEND, "none", append_body)
    several_events = [
        record("2026-0041", ISSUED.confluent(body).hex(), event(
            1, event_id("invoice", "2026-0041", "req-3", 0), "invoice.Issued", "2026-03-02T09:00:00Z", "req-3", digest, "req-3")),
        record("2026-0041", PAID.confluent(paid).hex(), event(
            2, "pay-1", "invoice.Paid", "2026-03-02T09:10:00.123456Z", "req-3", digest, "req-3"))]

    told_body = APPEND2.body(APPEND2_VALUE)
    told = record("2026-0041", APPEND2.confluent(told_body).hex(), [
        ("ce_id", "req-4"), ("ce_type", "foldstream.Append"), ("ce_time", "2026-03-02T09:00:00Z"), ("tenant", "of the request"), ("hop", "1")])
    digest = events_of("req-4", APPEND2, "any", told_body)
    carried = [("tenant", "of the request"), ("hop", "1")]
    told_events = [
        record("2026-0041", ISSUED.confluent(body).hex(), event(
            1, event_id("invoice", "2026-0041", "req-4", 0), "invoice.Issued", "2026-03-02T09:00:00Z", "req-4", digest, "req-4",
            *carried, *[(k, METADATA[k]) for k in sorted(METADATA, key=str.encode)])),
        record("2026-0041", PAID.confluent(paid).hex(), event(
            2, "pay-1", "invoice.Paid", "2026-03-02T09:10:00.123456Z", "req-4", digest, "req-4", *carried))]

    return {
        "about": "Records on a commands topic of a category in append mode, the events that they become on the events topic, and the headers of the answer (ce_time, which is the time of the answer, is left out). Values are hex. The order of headers has no meaning, but for unknown ones, which keep theirs.",
        "place": place,
        "vectors": [
            {"name": "every header", "request": full, "events": [full_event], "reply": {"topic": "acme.replies", "partition": 3, "key": "billing-7", "headers": [list(h) for h in full_reply]}},
            {"name": "the least", "request": least, "events": [least_event], "reply": {"topic": "acme.replies", "partition": -1, "key": "req-2", "headers": [list(h) for h in least_reply]}},
            {"name": "several events, no answer wanted", "request": several, "events": several_events},
            {"name": "an append with metadata, which stands behind the headers of the request", "request": told, "events": told_events},
        ],
        "refused": [
            {"name": "no id", "headers": [["ce_type", "invoice.Issued"]], "header": "ce_id"},
            {"name": "an empty id", "headers": [["ce_id", ""], ["ce_type", "invoice.Issued"]], "header": "ce_id"},
            {"name": "an id of 256 bytes", "headers": [["ce_id", "x" * 256], ["ce_type", "invoice.Issued"]], "header": "ce_id"},
            {"name": "no type", "headers": [["ce_id", "r"]], "header": "ce_type"},
            {"name": "a header that stands twice", "headers": [["ce_id", "r"], ["ce_id", "r"], ["ce_type", "invoice.Issued"]], "header": "ce_id"},
            {"name": "a control character", "headers": [["ce_id", "r"], ["ce_type", "invoice.Issued"], ["ce_userid", "a\x00b"]], "header": "ce_userid"},
            {"name": "another CloudEvents version", "headers": [["ce_id", "r"], ["ce_type", "invoice.Issued"], ["ce_specversion", "0.3"]], "header": "ce_specversion"},
            {"name": "an unknown header of 4097 bytes", "headers": [["ce_id", "r"], ["ce_type", "invoice.Issued"], ["note", "x" * 4097]], "header": "note"},
        ],
    }


def lineage():
    def r(producer, epoch, verdict, control=""):
        return {"producerId": producer, "epoch": epoch, "control": control, "verdict": verdict}

    return {
        "about": "The void rule of readers: which records of an events partition are events. verdict is what a reader that begins at the first of the records says of each, in offset order.",
        "vectors": [
            {"name": "from the start of the log", "records": [
                r(10, 0, "control", "claim"), r(10, 0, "event"), r(10, 0, "event"), r(10, 1, "control", "claim"), r(10, 1, "event"),
                r(10, 0, "void"), r(10, 1, "event"), r(10, 1, "control", "keepalive"), r(10, 1, "event")]},
            {"name": "another producer id claims, and the former one is fenced", "records": [
                r(10, 3, "control", "claim"), r(10, 3, "event"), r(10, 32767, "control", "fence"), r(11, 0, "control", "claim"), r(11, 0, "event"),
                r(10, 3, "void")]},
            {"name": "a fence batch changes nothing by itself", "records": [
                r(10, 3, "control", "claim"), r(12, 32767, "control", "fence"), r(10, 3, "event")]},
            {"name": "from the middle: the first pair counts", "records": [
                r(10, 3, "event"), r(10, 2, "void"), r(10, 4, "control", "claim"), r(10, 3, "void"), r(10, 4, "event")]},
            {"name": "from the middle: a keep-alive's pair counts, a fence's does not", "records": [
                r(12, 32767, "control", "fence"), r(10, 3, "control", "keepalive"), r(10, 2, "void"), r(10, 3, "event")]},
            {"name": "a stranger without an idempotent producer", "records": [
                r(10, 3, "control", "claim"), r(-1, -1, "void"), r(10, 3, "event")]},
        ],
    }


def letters():
    topic_id = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
    consumer, partition, offset = "ingest", 5, 901
    message = "value is not framed Avro: 4 bytes, a Confluent header has 5"
    kind = "\x00".join([consumer, "decode", "frame", "value is not framed Avro: # bytes, a Confluent header has #"])
    return {
        "about": "A letter in acme.dlq.ingest: key and value of the record as they were, its headers, then these. dlq.id is a UUIDv5 (ids.json). dlq.fingerprint: the first 8 bytes, hex, of SHA-256 over consumer, stage, class and message, joined by NUL, each run of digits in the message replaced by #.",
        "vectors": [{
            "consumer": consumer, "topic": "acme.invoice.commands", "topicId": topic_id, "partition": partition, "offset": offset,
            "stage": "decode", "class": "frame", "message": message, "attempts": 1, "firstAt": "2026-03-02T09:10:02.5Z", "reason": "failed",
            "recordHeaders": [["ce_id", "req-9"], ["ce_type", "invoice.Issued"]],
            "headers": [["ce_id", "req-9"], ["ce_type", "invoice.Issued"],
                        ["dlq.id", uuid5(LETTER_NAMESPACE, letter_name(consumer, topic_id, partition, offset))], ["dlq.consumer", consumer],
                        ["dlq.topic", "acme.invoice.commands"], ["dlq.topic-id", topic_id], ["dlq.partition", "5"], ["dlq.offset", "901"],
                        ["dlq.stage", "decode"], ["dlq.class", "frame"], ["dlq.message", message], ["dlq.attempts", "1"],
                        ["dlq.first-at", "2026-03-02T09:10:02.5Z"], ["dlq.reason", "failed"],
                        ["dlq.fingerprint", hashlib.sha256(kind.encode()).digest()[:8].hex()]],
        }],
    }


FILES = {"framing.json": framing, "ids.json": ids, "hash.json": hashes, "append.json": appends, "append.v2.json": appends_2, "append-batch.json": batches, "reply.json": replies,
         "texts.json": texts, "headers.json": headers, "lineage.json": lineage, "letter.json": letters}


def main():
    check_murmur2()
    check = sys.argv[1:] == ["--check"]
    stale = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        path = HERE / name
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
            continue
        path.write_text(text)
    if stale:
        sys.exit("differ from what generate.py writes: " + ", ".join(stale))


if __name__ == "__main__":
    main()
