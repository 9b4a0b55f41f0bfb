// Package event holds the words that every room shares: stream ids, versions, the kinds of
// message, and the headers that a Foldstream record carries (CloudEvents in binary mode, plus
// Foldstream's own with the prefix "fs-").
//
// A stream is one aggregate, named by (category, id). Its events have the versions 1, 2, 3 …
// without a gap. Everything here is a value; nothing holds a lock, and all of it may be used
// from any goroutine.
package event

import (
	"errors"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Header is one record header, shared with the Kafka client so that no copy is needed.
type Header = kgo.RecordHeader

// StreamIDBytesMax is the longest aggregate id, in bytes of UTF-8.
const StreamIDBytesMax = 255

// StreamID names one aggregate: a category and an id within it.
type StreamID struct {
	Category string
	ID       string
}

// String returns "category/id".
func (s StreamID) String() string { return s.Category + "/" + s.ID }

// Version numbers the events of one stream from 1. Zero is a stream without events.
type Version int64

// Kind says what a registered type is.
type Kind string

// The kinds of a registered type (the .avsc property "fs.kind").
const (
	KindCommand Kind = "command" // decided by a decider or by an external participant
	KindEvent   Kind = "event"   // a fact; on a commands topic it is a raw append
	KindState   Kind = "state"   // a decider's state; only in snapshots
	KindSystem  Kind = "system"  // Foldstream's own envelopes: foldstream.Append, foldstream.Reply
)

// Errors that callers branch on.
var (
	ErrIDMissing = errors.New("aggregate id is missing: set the record key to the aggregate's id")
	ErrIDTooLong = fmt.Errorf("aggregate id is longer than %d bytes", StreamIDBytesMax)
	ErrIDText    = errors.New("aggregate id must be UTF-8 without control characters")
)

// ValidateID checks an aggregate id: 1 to 255 bytes of UTF-8 without control characters.
func ValidateID(id string) error {
	switch {
	case id == "":
		return ErrIDMissing
	case len(id) > StreamIDBytesMax:
		return fmt.Errorf("%w (it has %d)", ErrIDTooLong, len(id))
	case !utf8.ValidString(id):
		return ErrIDText
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return ErrIDText
		}
	}
	return nil
}

// Expected is the condition that a request puts on its stream's version.
// The zero value is "any".
type Expected struct {
	kind    expectedKind
	version Version
}

type expectedKind uint8

const (
	expectedAny expectedKind = iota
	expectedExists
	expectedExactly
)

// The named conditions. ExpectedNone equals ExpectExactly(0) (PROTOCOL D10).
var (
	ExpectedAny    = Expected{}
	ExpectedNone   = Expected{kind: expectedExactly}
	ExpectedExists = Expected{kind: expectedExists}
)

// ExpectExactly demands that the stream is at version v.
func ExpectExactly(v Version) Expected { return Expected{kind: expectedExactly, version: v} }

// ParseExpected reads "any", "none", "exists" or a decimal version; "" is "any".
func ParseExpected(text string) (Expected, error) {
	switch text {
	case "", "any":
		return ExpectedAny, nil
	case "none":
		return ExpectedNone, nil
	case "exists":
		return ExpectedExists, nil
	}
	n, err := parseDecimal(text)
	if err != nil {
		return Expected{}, fmt.Errorf("expected version %q: want any, none, exists or a decimal number of at most 18 digits", clip(text))
	}
	return ExpectExactly(Version(n)), nil
}

// Holds says whether a stream at version actual fulfils the condition.
func (e Expected) Holds(actual Version) bool {
	switch e.kind {
	case expectedAny:
		return true
	case expectedExists:
		return actual > 0
	default:
		return actual == e.version
	}
}

// String returns the header text; ExpectedNone and ExpectExactly(0) are both "none".
func (e Expected) String() string {
	switch {
	case e.kind == expectedAny:
		return "any"
	case e.kind == expectedExists:
		return "exists"
	case e.version == 0:
		return "none"
	default:
		return strconv.FormatInt(int64(e.version), 10)
	}
}

// parseDecimal reads unsigned decimal ASCII of 1 to 18 digits (PROTOCOL D1), so that no sign,
// space, underscore or overflow gets through.
func parseDecimal(text string) (int64, error) {
	if text == "" || len(text) > 18 {
		return 0, strconv.ErrSyntax
	}
	var n int64
	for i := range len(text) {
		d := text[i] - '0'
		if d > 9 {
			return 0, strconv.ErrSyntax
		}
		n = n*10 + int64(d)
	}
	return n, nil
}

// clip shortens foreign text for an error message.
func clip(text string) string {
	const clipBytes = 64
	if len(text) > clipBytes {
		return text[:clipBytes] + "…"
	}
	return text
}
