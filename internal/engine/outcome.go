package engine

import (
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// OutcomeKind is the fate of one request.
type OutcomeKind string

// The six outcomes (DESIGN §5). Unknown is never final: ask again with the same id.
const (
	OutcomeUnknown   OutcomeKind = "unknown"
	OutcomeAccepted  OutcomeKind = "accepted"
	OutcomeDuplicate OutcomeKind = "duplicate"
	OutcomeConflict  OutcomeKind = "conflict"
	OutcomeRejected  OutcomeKind = "rejected"
	OutcomeInvalid   OutcomeKind = "invalid"
)

// Codes of invalid and rejected outcomes that the engine itself gives; deciders add their own
// to the latter. They are part of the wire format.
const (
	CodeHeader        = "header"         // a header is missing or malformed
	CodeKey           = "key"            // the record key is no aggregate id
	CodeTombstone     = "tombstone"      // the value is null
	CodeFrame         = "frame"          // the value's framing is neither Confluent nor single-object
	CodeUnknownSchema = "unknown-schema" // the schema id or fingerprint is not registered
	CodeTypeMismatch  = "type-mismatch"  // the schema is not the type's
	CodePayload       = "payload"        // the Avro payload is malformed or hostile
	CodeType          = "type"           // the type is not one of this category
	CodeKind          = "kind"           // the type's kind cannot be sent here
	CodeReplyTo       = "reply-to"       // the reply topic is not one that may be named
	CodeDedupeUntil   = "dedupe-until"   // more than 24 h ahead
	CodeIDReused      = "id-reused"      // the same id came with other content
	CodeEmptyAppend   = "empty-append"   // a foldstream.Append without events, or with too many
	CodeTooLarge      = "too-large"      // the events do not fit one record batch
	CodeRefused       = "refused"        // the broker refuses the batch for good
	CodeCapacity      = "over-capacity"  // the state budget or a stream's window is full
)

// Outcome is the answer to one request.
type Outcome struct {
	Kind      OutcomeKind
	First     event.Version // accepted, duplicate: 0 when the request left no event
	Last      event.Version
	Actual    event.Version // conflict: the stream's version when it was decided
	Partition int32
	Offset    int64  // accepted, duplicate: of the last event; -1 without one
	Code      string // rejected, invalid
	Message   string
	Errors    []string // invalid: each fault
}

func invalid(code string, err error) Outcome {
	return Outcome{Kind: OutcomeInvalid, Code: code, Message: err.Error(), Errors: faultTexts(err), Offset: -1}
}

func rejected(code, message string) Outcome {
	return Outcome{Kind: OutcomeRejected, Code: code, Message: message, Offset: -1}
}

// faultTexts lists the parts of a joined error.
func faultTexts(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, e := range joined.Unwrap() {
			texts = append(texts, faultTexts(e)...)
		}
		if len(texts) > 0 {
			return texts
		}
	}
	return []string{err.Error()}
}

// reply is the wire form of an outcome.
func (o Outcome) reply(req *event.Request, stream event.StreamID) codec.Reply {
	if o.Kind != OutcomeAccepted && o.Kind != OutcomeDuplicate {
		o.Partition, o.Offset = -1, -1
	}
	return codec.Reply{
		RequestID: req.ID, Outcome: string(o.Kind), Category: stream.Category, StreamID: stream.ID,
		FirstVersion: int64(o.First), LastVersion: int64(o.Last), ActualVersion: int64(o.Actual),
		Partition: o.Partition, Offset: o.Offset, Code: o.Code, Message: o.Message, Errors: o.Errors,
		Attempt: req.Attempt,
	}
}
