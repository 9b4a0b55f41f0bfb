package codec

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// ErrBadData is wrapped by every fault of the data itself: such a record is invalid, or becomes
// a letter. What does not wrap it (registry unreachable, context ended) is infrastructure and
// is tried again.
var ErrBadData = errors.New("bad data")

// Kinds of bad data, for callers that tell them apart. Each wraps ErrBadData.
var (
	// ErrFrame: the value has neither Confluent nor single-object framing.
	ErrFrame error = &sentinel{"value is not framed Avro"}
	// ErrUnknownSchema: the registry is there and has no such schema.
	ErrUnknownSchema error = &sentinel{"schema is not registered"}
	// ErrTypeMismatch: the schema is registered, but for another type than the record's.
	ErrTypeMismatch error = &sentinel{"schema belongs to another type"}
	// ErrHostile: the guard refused the body: malformed, or beyond the Limits.
	ErrHostile error = &sentinel{"body refused by the guard"}
	// ErrIncompatible: the writer's schema cannot be read as the reader's.
	ErrIncompatible error = &sentinel{"schemas are incompatible"}
	// ErrUpcast: an upcaster failed, or its result does not fit the next version.
	ErrUpcast error = &sentinel{"upcaster failed"}
)

// ErrBinding is a fault of a program, not of data: a Go struct that does not fit its schema, or
// a kind that disagrees. It does not wrap ErrBadData, and asking again does not help.
var ErrBinding = errors.New("type does not bind")

type sentinel struct{ text string }

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return ErrBadData }

// The values of Error.Op, in the order in which a value meets them.
const (
	OpFrame  = "frame"
	OpSchema = "schema"
	OpGuard  = "guard"
	OpDecode = "decode"
	OpUpcast = "upcast"
	OpEncode = "encode"
	OpBind   = "bind"
)

// Error says at which step, for which type and schema, something failed.
type Error struct {
	Op       string // one of the Op constants
	Type     string // the ce_type; may be empty
	SchemaID int32  // 0 where no schema is known yet
	Err      error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("avro " + e.Op)
	if e.Type != "" {
		b.WriteString(" " + e.Type)
	}
	if e.SchemaID != 0 {
		fmt.Fprintf(&b, " (schema %d)", e.SchemaID)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// CompatibilityError lists why a schema may not be registered after an earlier version.
type CompatibilityError struct {
	Type    string
	Version int // the one that was to be registered
	Against int // the version that it breaks
	Faults  []string
}

func (e *CompatibilityError) Error() string {
	return fmt.Sprintf("%s version %d cannot read what version %d wrote: %s",
		e.Type, e.Version, e.Against, strings.Join(e.Faults, "; "))
}

func (e *CompatibilityError) Unwrap() error { return ErrIncompatible }

// badData marks an error of the Avro library as a fault of the data.
func badData(err error) error { return fmt.Errorf("%w: %w", ErrBadData, err) }

// panicked makes an error of a recovered panic, with the innermost frames of its stack.
func panicked(what string, recovered any) error {
	const stackBytesMax = 2 << 10
	stack := debug.Stack()
	return fmt.Errorf("%s panicked: %v\n%s", what, recovered, stack[:min(len(stack), stackBytesMax)])
}

// clip shortens foreign text for an error message.
func clip(text string) string {
	const clipBytes = 64
	if len(text) > clipBytes {
		return text[:clipBytes] + "…"
	}
	return text
}
