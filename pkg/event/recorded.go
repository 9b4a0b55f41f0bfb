package event

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Recorded is one event as it stands in the log. The byte slices are the record's own.
type Recorded struct {
	Stream        StreamID
	Version       Version
	ID            string
	Type          string
	Time          time.Time // business time (ce_time), UTC
	RecordedAt    time.Time // the record's own stamp; "recorded at" is its running maximum (PROTOCOL T1)
	Partition     int32
	Offset        int64
	CommandID     string
	CommandHash   string // hex of 16 bytes
	CommandOffset int64  // -1 where the command had no record (fast path)
	DecidedOffset int64  // there: the commands topic was decided up to it; -1 elsewhere
	DedupeUntil   time.Time
	Origin        *Origin
	CorrelationID string
	CausationID   string
	UserID        string
	Traceparent   string
	Extra         []Header
	Value         []byte // framed Avro
}

// ParseRecorded reads an event of our own log. category is the topic's. It fails on records
// that a writer of ours cannot have written.
func ParseRecorded(category string, rec *kgo.Record) (Recorded, error) {
	r := Recorded{
		Stream: StreamID{Category: category, ID: string(rec.Key)}, RecordedAt: rec.Timestamp,
		Partition: rec.Partition, Offset: rec.Offset, CommandOffset: -1, DecidedOffset: -1, Value: rec.Value,
	}
	var faults []error
	if err := ValidateID(r.Stream.ID); err != nil {
		faults = append(faults, err)
	}
	for _, h := range rec.Headers {
		if reason := r.set(h); reason != "" {
			faults = append(faults, &HeaderError{Header: h.Key, Reason: reason})
		}
	}
	if r.Type == "" {
		faults = append(faults, &HeaderError{Header: HeaderType, Reason: "is missing"})
	}
	if r.Version < 1 {
		faults = append(faults, &HeaderError{Header: HeaderSequence, Reason: "is missing or below 1"})
	}
	if rec.Value == nil {
		faults = append(faults, errors.New("value is null"))
	}
	if len(faults) > 0 {
		return r, fmt.Errorf("record %s[%d]@%d is not an event of ours: %w", rec.Topic, rec.Partition, rec.Offset, errors.Join(faults...))
	}
	return r, nil
}

func (r *Recorded) set(h Header) string {
	switch h.Key {
	case HeaderID:
		r.ID = string(h.Value)
	case HeaderType:
		r.Type = string(h.Value)
	case HeaderTime:
		return setTime(&r.Time, string(h.Value))
	case HeaderSequence:
		n, err := parseDecimal(string(h.Value))
		if err != nil {
			return "want a decimal number"
		}
		r.Version = Version(n)
	case HeaderCommandID:
		r.CommandID = string(h.Value)
	case HeaderCommandHash:
		r.CommandHash = string(h.Value)
	case HeaderCommandOffset:
		n, err := parseDecimal(string(h.Value))
		if err != nil {
			return "want a decimal number"
		}
		r.CommandOffset = n
	case HeaderDecidedOffset:
		n, err := parseDecimal(string(h.Value))
		if err != nil {
			return "want a decimal number"
		}
		r.DecidedOffset = n
	case HeaderDedupeUntil:
		return setTime(&r.DedupeUntil, string(h.Value))
	case HeaderOrigin:
		o, err := ParseOrigin(string(h.Value))
		if err != nil {
			return err.Error()
		}
		r.Origin = &o
	case HeaderCorrelationID:
		r.CorrelationID = string(h.Value)
	case HeaderCausationID:
		r.CausationID = string(h.Value)
	case HeaderUserID:
		r.UserID = string(h.Value)
	case HeaderTraceparent:
		r.Traceparent = string(h.Value)
	case HeaderSource, HeaderSpecVersion, HeaderSubject, HeaderContentType:
	default:
		r.Extra = append(r.Extra, h)
	}
	return ""
}

// Control returns the value of fs-control, or "" for a record that is no control record.
func Control(headers []Header) string {
	for _, h := range headers {
		if h.Key == HeaderControl {
			return string(h.Value)
		}
	}
	return ""
}

// HeaderValue returns the first value of a header and whether it is there.
func HeaderValue(headers []Header, name string) ([]byte, bool) {
	for _, h := range headers {
		if h.Key == name {
			return h.Value, true
		}
	}
	return nil, false
}

// FormatTopicID writes a topic id as hex (PROTOCOL D1).
func FormatTopicID(id [16]byte) string { return hex.EncodeToString(id[:]) }

// ParseTopicID reads the text of FormatTopicID.
func ParseTopicID(text string) ([16]byte, error) {
	var id [16]byte
	if len(text) != 32 {
		return id, fmt.Errorf("topic id %q: want 32 hex digits", clip(text))
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return id, fmt.Errorf("topic id %q: want 32 hex digits", clip(text))
	}
	return id, nil
}

// namespaceID is the UUID namespace of every id that Foldstream derives (RFC 9562, version 5).
var namespaceID = uuid.MustParse("6f1d3c1e-5b0a-5c8e-9a53-0f7f6a1f2c11")

// DeriveID returns the event id of a decider's index-th event (PROTOCOL D6): a UUIDv5 of
// category, stream, command id and index, so that a repeated decision has the same ids.
func DeriveID(stream StreamID, commandID string, index int) string {
	return uuid.NewSHA1(namespaceID, fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", stream.Category, stream.ID, commandID, index)).String()
}

// ReplyID returns the ce_id of the answer to a request: UUIDv5(request id, "reply").
func ReplyID(requestID string) string {
	return uuid.NewSHA1(namespaceID, []byte(requestID+"\x00reply")).String()
}
