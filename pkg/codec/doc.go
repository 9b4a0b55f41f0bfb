// Package codec turns framed Avro bytes into Go values and back, and trusts none of them.
//
// # The way of one value
//
//	value ── ParseFrame ──► id or fingerprint ── Reader ──► *Registered (type, version, schema)
//	                                                            │ is it the record's ce_type?
//	body ───────────────── Schema.Check, the guard ◄────────────┘
//	                            │ every byte accounted for, nothing beyond the Limits
//	Payload ── Binding.Decode ──► upcast or resolve ──► Go struct or generic map
//
// [Codec.Inspect] is everything up to the Payload: about half a microsecond and no allocation
// for an ordinary event, so that a consumer can afford it on records that it never decodes.
// [Binding.Decode] is the rest. Only a Payload made by Inspect or InspectBody may be decoded:
// the Avro library behind this package is fast and correct on honest bytes, and can be made to
// allocate gigabytes by dishonest ones (docs/decisions/0002-avro-library-and-guard.md).
//
// # What an error means
//
// A fault of the data wraps [ErrBadData]; asking again gives the same fault. An error that does
// not wrap it comes from the Reader or the context: the data may be sound, ask again later.
//
// # Concurrency
//
// Schema, Codec and Binding may be used from any goroutine. Their caches are read without a
// lock and only grow, up to a bound. Nothing here keeps a body after its call returns; a
// Payload references the caller's bytes.
package codec
