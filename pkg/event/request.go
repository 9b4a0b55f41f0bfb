package event

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on headers. A request beyond one is invalid.
const (
	HeaderValueBytesMax = 4096
	HeadersMax          = 64
	IDBytesMax          = 255
	TypeBytesMax        = 255
	DedupeAheadMax      = 24 * time.Hour
)

// HeaderError names the header that a record has wrong, and what it should be.
type HeaderError struct {
	Header string
	Reason string
}

func (e *HeaderError) Error() string { return "header " + e.Header + ": " + e.Reason }

// Origin is where a re-routed command was first read (PROTOCOL W14).
type Origin struct {
	TopicID   [16]byte
	Partition int32
	Offset    int64
}

// String returns "<topic id hex>/<partition>/<offset>".
func (o Origin) String() string {
	return hex.EncodeToString(o.TopicID[:]) + "/" + strconv.Itoa(int(o.Partition)) + "/" + strconv.FormatInt(o.Offset, 10)
}

// ParseOrigin reads the text of Origin.String.
func ParseOrigin(text string) (Origin, error) {
	fault := fmt.Errorf("want <topic id hex>/<partition>/<offset>, got %q", clip(text))
	parts := strings.Split(text, "/")
	if len(parts) != 3 || len(parts[0]) != 32 {
		return Origin{}, fault
	}
	var o Origin
	if _, err := hex.Decode(o.TopicID[:], []byte(parts[0])); err != nil {
		return Origin{}, fault
	}
	partition, err := parseDecimal(parts[1])
	if err != nil || partition > 1<<31-1 {
		return Origin{}, fault
	}
	o.Partition = int32(partition)
	if o.Offset, err = parseDecimal(parts[2]); err != nil {
		return Origin{}, fault
	}
	return o, nil
}

// ReplyTo is where a request wants its answer: a topic and, where Partition is not -1, one
// partition of it.
type ReplyTo struct {
	Topic     string
	Partition int32
}

// String returns "topic" or "topic/partition".
func (r ReplyTo) String() string {
	if r.Partition < 0 {
		return r.Topic
	}
	return r.Topic + "/" + strconv.Itoa(int(r.Partition))
}

// Request is what a record on a commands topic asks for, read from its headers. Key and value
// are the caller's. The header values are referenced, not copied.
type Request struct {
	ID            string
	Type          string
	Source        string
	Time          time.Time // business time; zero when the header is absent
	Expected      Expected
	ReplyTo       ReplyTo // Topic "" when no answer is wanted
	ReplyKey      []byte  // nil means the request's ID
	DedupeUntil   time.Time
	Compensates   string
	Attempt       string
	CorrelationID string
	CausationID   string
	UserID        string
	Traceparent   string
	Origin        *Origin
	Extra         []Header // headers that are not ours, carried along untouched
}

// ParseRequest reads a request's headers. It always returns what could be read, so that an
// answer can be sent to a request that is invalid; the error joins one *HeaderError for each
// fault. The first occurrence of a header counts, as CloudEvents demands uniqueness a second
// one is a fault.
func ParseRequest(headers []Header) (Request, error) {
	r := Request{ReplyTo: ReplyTo{Partition: -1}}
	var faults []error
	fault := func(header, reason string, args ...any) {
		faults = append(faults, &HeaderError{Header: header, Reason: fmt.Sprintf(reason, args...)})
	}
	if len(headers) > HeadersMax {
		fault("*", "%d headers, at most %d are allowed", len(headers), HeadersMax)
		headers = headers[:HeadersMax]
	}
	var seen uint32
	for _, h := range headers {
		bit, ours := requestHeaderBits[h.Key]
		if !ours {
			if len(h.Value) > HeaderValueBytesMax {
				fault(h.Key, "value has %d bytes, at most %d are allowed", len(h.Value), HeaderValueBytesMax)
				continue
			}
			r.Extra = append(r.Extra, h)
			continue
		}
		if seen&bit != 0 {
			fault(h.Key, "stands twice")
			continue
		}
		seen |= bit
		if len(h.Value) > HeaderValueBytesMax {
			fault(h.Key, "value has %d bytes, at most %d are allowed", len(h.Value), HeaderValueBytesMax)
			continue
		}
		if h.Key == HeaderReplyKey {
			r.ReplyKey = h.Value
			continue
		}
		if !utf8.Valid(h.Value) {
			fault(h.Key, "is not UTF-8")
			continue
		}
		if reason := r.set(h.Key, string(h.Value)); reason != "" {
			fault(h.Key, "%s", reason)
		}
	}
	if r.ID == "" && !hasFault(faults, HeaderID) {
		fault(HeaderID, "is missing: give each request an id of its own, it makes the request idempotent")
	}
	if r.Type == "" && !hasFault(faults, HeaderType) {
		fault(HeaderType, "is missing: name the registered type, <category>.<Name>")
	}
	return r, errors.Join(faults...)
}

var requestHeaderBits = func() map[string]uint32 {
	bits := map[string]uint32{}
	for i, name := range []string{
		HeaderID, HeaderType, HeaderSource, HeaderSpecVersion, HeaderTime, HeaderSubject, HeaderContentType,
		HeaderSequence, HeaderCorrelationID, HeaderCausationID, HeaderUserID, HeaderTraceparent,
		HeaderExpectedVersion, HeaderReplyTo, HeaderReplyKey, HeaderDedupeUntil, HeaderCompensates, HeaderAttempt,
		HeaderCommandID, HeaderCommandHash, HeaderCommandOffset, HeaderDecidedOffset, HeaderOrigin, HeaderControl,
	} {
		bits[name] = 1 << i
	}
	return bits
}()

// set stores one header and returns what is wrong with it, or "".
func (r *Request) set(name, value string) string {
	switch name {
	case HeaderID:
		return setText(&r.ID, value, IDBytesMax)
	case HeaderType:
		return setText(&r.Type, value, TypeBytesMax)
	case HeaderSource:
		return setPlain(&r.Source, value)
	case HeaderSpecVersion:
		if value != SpecVersion {
			return "want " + SpecVersion
		}
	case HeaderTime:
		return setTime(&r.Time, value)
	case HeaderExpectedVersion:
		var err error
		if r.Expected, err = ParseExpected(value); err != nil {
			return err.Error()
		}
	case HeaderReplyTo:
		var err error
		if r.ReplyTo, err = ParseReplyTo(value); err != nil {
			return err.Error()
		}
	case HeaderDedupeUntil:
		return setTime(&r.DedupeUntil, value)
	case HeaderCompensates:
		return setText(&r.Compensates, value, IDBytesMax)
	case HeaderAttempt:
		return setPlain(&r.Attempt, value)
	case HeaderCorrelationID:
		return setPlain(&r.CorrelationID, value)
	case HeaderCausationID:
		return setPlain(&r.CausationID, value)
	case HeaderUserID:
		return setPlain(&r.UserID, value)
	case HeaderTraceparent:
		return setPlain(&r.Traceparent, value)
	case HeaderOrigin:
		o, err := ParseOrigin(value)
		if err != nil {
			return err.Error()
		}
		r.Origin = &o
	}
	// content-type, subject and what only events or control records carry: of no meaning on a
	// request, and not carried along, since the writer sets its own.
	return ""
}

// ParseReplyTo reads "topic" or "topic/partition".
func ParseReplyTo(text string) (ReplyTo, error) {
	topic, partition, found := strings.Cut(text, "/")
	if topic == "" {
		return ReplyTo{Partition: -1}, errors.New("names no topic")
	}
	if !isTopicName(topic) {
		return ReplyTo{Partition: -1}, fmt.Errorf("topic %q: want 1 to %d of a-z, A-Z, 0-9, '.', '_' and '-'", clip(topic), topicBytesMax)
	}
	if !found {
		return ReplyTo{Topic: topic, Partition: -1}, nil
	}
	n, err := parseDecimal(partition)
	if err != nil || n > 1<<31-1 {
		return ReplyTo{Partition: -1}, fmt.Errorf("partition %q: want a decimal number", clip(partition))
	}
	return ReplyTo{Topic: topic, Partition: int32(n)}, nil
}

// topicBytesMax is Kafka's own limit.
const topicBytesMax = 249

func isTopicName(topic string) bool {
	if len(topic) > topicBytesMax || topic == "." || topic == ".." {
		return false
	}
	for i := range len(topic) {
		c := topic[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func setText(dst *string, value string, bytesMax int) string {
	if value == "" {
		return "is empty"
	}
	if len(value) > bytesMax {
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(value), bytesMax)
	}
	return setPlain(dst, value)
}

// setPlain takes text without control characters. A NUL above all must not get into the log:
// Postgres refuses it in text, so each view would stumble over it.
func setPlain(dst *string, value string) string {
	for _, c := range value {
		if c < 0x20 || c == 0x7f {
			return "has control characters"
		}
	}
	*dst = value
	return ""
}

// Times must fit what Postgres and Avro's timestamp-micros hold.
var (
	timeMin = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	timeMax = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
)

func setTime(dst *time.Time, value string) string {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return fmt.Sprintf("want a time as in RFC 3339, got %q", clip(value))
	}
	t = t.UTC()
	if t.Before(timeMin) || t.After(timeMax) {
		return fmt.Sprintf("time %q is outside the years 1 to 9999", clip(value))
	}
	*dst = t
	return ""
}

func hasFault(faults []error, header string) bool {
	for _, f := range faults {
		var he *HeaderError
		if errors.As(f, &he) && he.Header == header {
			return true
		}
	}
	return false
}

// FormatTime writes a header time: RFC 3339 in UTC, with as many digits as needed.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
