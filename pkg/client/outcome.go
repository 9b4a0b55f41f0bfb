package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/foldstream/foldstream/pkg/event"
)

// Kind says how a request ended well.
type Kind string

// The kinds of an Outcome. Everything else is an error.
const (
	Accepted  Kind = "accepted"
	Duplicate Kind = "duplicate" // accepted before; versions and place are those of then
)

// Outcome is what became of a request that was accepted.
type Outcome struct {
	Kind      Kind
	RequestID string
	First     event.Version // of its events; 0 where it left none
	Last      event.Version
	Partition int32 // of the events topic
	Offset    int64 // of the last event; -1 where there is none
}

// Errors that callers branch on.
var (
	// ErrUnknownOutcome: the request may have been accepted or not. The *UnknownError names its
	// id: send it again under that id, or look it up.
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrOverloaded: there was no room for the request, and it was certainly not accepted.
	ErrOverloaded = errors.New("overloaded")
	// ErrNoStream: the stream has no event.
	ErrNoStream = errors.New("the stream has no event")
	// ErrNoVersion: the stream does not have that version.
	ErrNoVersion = errors.New("the stream does not have that version")
	// ErrNoFold: the category's state cannot be folded: it has no decider (over Kafka: none in Config.Deciders).
	ErrNoFold = errors.New("the category has no decider")
	// ErrNoCommand: no event of that command is in the log.
	ErrNoCommand = errors.New("no event of that command is in the log")
	// ErrNoCategory: the server has no such category, or the broker no topic of it.
	ErrNoCategory = errors.New("unknown category")
	// ErrStale: the read side has not come far enough in the time that was allowed.
	ErrStale = errors.New("the index of events is behind")
	// ErrScanLimit: a read over Kafka met Config.ScanBytesMax.
	ErrScanLimit = errors.New("the scan read as much as Config.ScanBytesMax allows")
	// ErrPosition: a position is of another log, or malformed.
	ErrPosition = errors.New("the position is not one of this log")
	// ErrClosed: the client is closed.
	ErrClosed = errors.New("the client is closed")
)

// ConflictError says that the expected version did not hold. Load, decide again, send under a new id.
type ConflictError struct {
	RequestID string
	Stream    event.StreamID
	Expected  event.Expected
	Actual    event.Version // the stream's version when the request was decided
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("conflict: stream %s is at version %d, expected was %s", e.Stream, e.Actual, e.Expected)
}

// CodeOverCapacity is the RejectedError.Code of a writer without room: the request is sent again
// like one that found no room elsewhere, and the error wraps ErrOverloaded.
const CodeOverCapacity = "over-capacity"

// RejectedError is a business refusal by the category's decider.
type RejectedError struct {
	RequestID string
	Stream    event.StreamID
	Code      string // short, stable, for programs
	Message   string // for people
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("rejected (%s) for stream %s: %s", e.Code, e.Stream, e.Message)
}

// Is says that a rejection for lack of room is ErrOverloaded.
func (e *RejectedError) Is(target error) bool {
	return target == ErrOverloaded && e.Code == CodeOverCapacity
}

// InvalidError says that the request itself is at fault. Mend it and send it under a new id.
type InvalidError struct {
	RequestID string
	Stream    event.StreamID
	Code      string // as the wire format lists them, such as "payload"
	Message   string
	Faults    []Fault
}

// Fault is one thing wrong with a request.
type Fault struct {
	Path    string // where; "" for the whole
	Message string
}

func (f Fault) String() string {
	if f.Path == "" {
		return f.Message
	}
	return f.Path + ": " + f.Message
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "invalid (%s) for stream %s", e.Code, e.Stream)
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	for _, f := range e.Faults {
		if text := f.String(); text != e.Message {
			b.WriteString("; " + text)
		}
	}
	return b.String()
}

// UnknownError says that every sending of a request ended without a final answer. It wraps
// ErrUnknownOutcome and the last cause.
type UnknownError struct {
	RequestID string
	Stream    event.StreamID
	Sendings  int
	Err       error // of the last sending
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("request %s for stream %s was sent %d times and the outcome is unknown; send it again under the same id, or look it up: %v",
		e.RequestID, e.Stream, e.Sendings, e.Err)
}

func (e *UnknownError) Unwrap() []error { return []error{ErrUnknownOutcome, e.Err} }
