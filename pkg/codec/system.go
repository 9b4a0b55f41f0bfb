package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/foldstream/foldstream/pkg/event"
)

// The types of Foldstream's own envelopes (schemas/avro/foldstream).
const (
	TypeAppend      = "foldstream.Append"
	TypeAppendBatch = "foldstream.AppendBatch"
	TypeReply       = "foldstream.Reply"
)

// Limits of an append and of a batch of them.
const (
	AppendEventsMax        = 1_000  // events of one append
	AppendBatchRequestsMax = 1_000  // requests of an AppendBatch
	AppendBatchEventsMax   = 10_000 // events of an AppendBatch, all requests together
)

// AppendEnvelope holds several ready events for one stream, appended as one.
type AppendEnvelope struct {
	Events []AppendItem `avro:"events"`
}

// AppendItem is one event of an AppendEnvelope.
type AppendItem struct {
	Type     string `avro:"type"`     // the event's ce_type
	ID       string `avro:"id"`       // "": derived from the request's id and the position
	Time     int64  `avro:"time"`     // business time, microseconds since 1970 in UTC; 0: the request's ce_time
	SchemaID int32  `avro:"schemaId"` // the schema that Data is written with
	Data     []byte `avro:"data"`     // the Avro body, without framing
	// Metadata becomes headers of this event alone, behind those that its request carries along.
	Metadata map[string]string `avro:"metadata"`
}

// BusinessTime returns the item's time, or the request's where the item has none.
func (i AppendItem) BusinessTime(request time.Time) time.Time {
	if i.Time == 0 {
		return request
	}
	return time.UnixMicro(i.Time).UTC()
}

// CheckMetadata says which entries of an item's metadata cannot be headers of an event: names that
// are empty, longer than MetadataNameBytesMax, hold control characters or belong to Foldstream
// (ce_…, fs-…, dlq.…, content-type, traceparent), values of more than event.HeaderValueBytesMax, or
// more than event.HeadersMax of them. The error joins one *event.HeaderError for each, in the order
// of the names.
func CheckMetadata(metadata map[string]string) error {
	var faults []error
	if len(metadata) > event.HeadersMax {
		faults = append(faults, &event.HeaderError{Header: "*", Reason: fmt.Sprintf("%d entries of metadata, at most %d are allowed", len(metadata), event.HeadersMax)})
		return errors.Join(faults...)
	}
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		if reason := metadataFault(name, metadata[name]); reason != "" {
			faults = append(faults, &event.HeaderError{Header: clip(name), Reason: reason})
		}
	}
	return errors.Join(faults...)
}

// MetadataNameBytesMax bounds the name of an entry of metadata.
const MetadataNameBytesMax = 255

func metadataFault(name, value string) string {
	switch {
	case name == "":
		return "is an empty name of metadata"
	case len(name) > MetadataNameBytesMax:
		return fmt.Sprintf("name has %d bytes, at most %d are allowed", len(name), MetadataNameBytesMax)
	case strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name):
		return "name has control characters or is not UTF-8"
	case reservedHeader(name):
		return "is Foldstream's own: metadata must not set it, choose another name"
	case len(value) > event.HeaderValueBytesMax:
		return fmt.Sprintf("value has %d bytes, at most %d are allowed", len(value), event.HeaderValueBytesMax)
	}
	return ""
}

// reservedHeader says whether only Foldstream may set a header of an event.
func reservedHeader(name string) bool {
	return strings.HasPrefix(name, "ce_") || strings.HasPrefix(name, "fs-") || strings.HasPrefix(name, "dlq.") ||
		name == event.HeaderContentType || name == event.HeaderTraceparent
}

// AppendBatch holds appends to many streams, each with an outcome of its own. It is a body of the
// HTTP API; a commands topic does not take it.
type AppendBatch struct {
	Requests []AppendBatchRequest `avro:"requests"`
}

// AppendBatchRequest is one append of an AppendBatch.
type AppendBatchRequest struct {
	Category string       `avro:"category"`
	StreamID string       `avro:"streamId"`
	ID       string       `avro:"id"`              // the idempotency key; "": the receiver makes one up
	Expected string       `avro:"expectedVersion"` // as in fs-expected-version; "": any
	Events   []AppendItem `avro:"events"`
}

// Reply is the answer to one request.
type Reply struct {
	RequestID     string   `avro:"requestId"`
	Outcome       string   `avro:"outcome"` // unknown, accepted, duplicate, conflict, rejected or invalid
	Category      string   `avro:"category"`
	StreamID      string   `avro:"streamId"`
	FirstVersion  int64    `avro:"firstVersion"`  // accepted, duplicate; 0 when the request left no event
	LastVersion   int64    `avro:"lastVersion"`   // likewise
	ActualVersion int64    `avro:"actualVersion"` // conflict
	Partition     int32    `avro:"partition"`     // accepted, duplicate; -1 elsewhere
	Offset        int64    `avro:"offset"`        // of the last event; -1 where there is none
	Code          string   `avro:"code"`          // rejected, invalid: for programs
	Message       string   `avro:"message"`       // for people
	Errors        []string `avro:"errors"`        // invalid: each fault
	Attempt       string   `avro:"attempt"`       // the request's fs-attempt
}

// AppendBody appends the Avro body of the reply, without framing: the bytes that the binding of
// ReplyDef writes, without its cost, since each command has an answer. Texts that are not UTF-8 are
// made so; an outcome that is none of the six is written as unknown.
func (r *Reply) AppendBody(dst []byte) []byte {
	dst = appendText(dst, r.RequestID)
	dst = binary.AppendVarint(dst, replyOutcomes[r.Outcome])
	dst = appendText(dst, r.Category)
	dst = appendText(dst, r.StreamID)
	dst = binary.AppendVarint(dst, r.FirstVersion)
	dst = binary.AppendVarint(dst, r.LastVersion)
	dst = binary.AppendVarint(dst, r.ActualVersion)
	dst = binary.AppendVarint(dst, int64(r.Partition))
	dst = binary.AppendVarint(dst, r.Offset)
	dst = appendText(dst, r.Code)
	dst = appendText(dst, r.Message)
	if len(r.Errors) > 0 {
		dst = binary.AppendVarint(dst, int64(len(r.Errors)))
		for _, text := range r.Errors {
			dst = appendText(dst, text)
		}
	}
	dst = append(dst, 0) // no further block
	return appendText(dst, r.Attempt)
}

// replyOutcomes are the symbols of the schema's enum.
var replyOutcomes = map[string]int64{"unknown": 0, "accepted": 1, "duplicate": 2, "conflict": 3, "rejected": 4, "invalid": 5}

func appendText(dst []byte, text string) []byte {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	dst = binary.AppendVarint(dst, int64(len(text)))
	return append(dst, text...)
}

// AppendDef ties foldstream.Append to AppendEnvelope. Version 1, whose items have no metadata, is
// read as well.
func AppendDef() TypeDef { return systemDef[AppendEnvelope](TypeAppend, 2) }

// AppendBatchDef is AppendDef for the batch.
func AppendBatchDef() TypeDef { return systemDef[AppendBatch](TypeAppendBatch, 1) }

// ReplyDef is AppendDef for the reply.
func ReplyDef() TypeDef { return systemDef[Reply](TypeReply, 1) }

func systemDef[T any](name string, version int) TypeDef {
	return TypeDef{Name: name, Version: version, Kind: event.KindSystem, GoType: reflect.TypeFor[T]()}
}
