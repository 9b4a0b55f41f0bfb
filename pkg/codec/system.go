package codec

import (
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// The types of Foldstream's own envelopes (schemas/avro/foldstream).
const (
	TypeAppend = "foldstream.Append"
	TypeReply  = "foldstream.Reply"
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
}

// BusinessTime returns the item's time, or the request's where the item has none.
func (i AppendItem) BusinessTime(request time.Time) time.Time {
	if i.Time == 0 {
		return request
	}
	return time.UnixMicro(i.Time).UTC()
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

// AppendDef and ReplyDef tie the envelopes to their structs.
func AppendDef() TypeDef { return systemDef[AppendEnvelope](TypeAppend) }

// ReplyDef is AppendDef for the reply.
func ReplyDef() TypeDef { return systemDef[Reply](TypeReply) }

func systemDef[T any](name string) TypeDef {
	return TypeDef{Name: name, Version: 1, Kind: event.KindSystem, GoType: reflect.TypeFor[T]()}
}
