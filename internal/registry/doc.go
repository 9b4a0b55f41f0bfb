// Package registry registers, checks and finds Avro schemas.
//
// There is one interface, [Registry], and two implementations of it, held to one conformance
// suite: [Topic] keeps the schemas in the compacted topic <ns>.schemas, so that a team needs
// nothing but its Kafka; [Confluent] talks to a registry that is there already.
//
// # Words
//
// A subject is a record's name, never a topic's: full name ↔ ce_type, one to one, mapped at
// registration. A schema says its type by its full name, or by the property "fs.type" where the
// full name must be another; its kind by "fs.kind" ([Describe]).
//
// A version never changes once it is registered; only its doc texts may. An id is never reused.
//
// # The topic
//
// One partition; key <subject>/<version>; the value is JSON:
//
//	{"subject": "order.Placed", "version": 1, "id": 7, "kind": "event", "schema": "…", "fingerprint": "9f2c…"}
//
// It is written under the claim protocol of the writer: a registrar claims the partition, reads
// up to its claim, checks, gives ids, and appends all in one batch. Two registrars race thus:
//
//	A claims        B claims (A is fenced from here on)
//	A appends  ──►  refused: A starts again from the read, and finds what B registered
//
// Claims are skipped by readers. Readers of compacted topics do not look for void batches
// (PROTOCOL W6): what a compaction removed may have been the claim.
//
// # What an error means
//
// [codec.ErrUnknownSchema] says: the registry was asked just now, or a moment ago, and has no
// such schema. Everything else of a lookup is infrastructure, to be tried again.
//
// # Concurrency
//
// All methods may be called from any goroutine. Known schemas are found without I/O. A Topic has
// one goroutine, which follows the topic; a Confluent has none.
package registry
