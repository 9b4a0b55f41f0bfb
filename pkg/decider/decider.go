// Package decider is what a team writes for the write side: three plain functions' worth of
// business rule per category, and the types they speak of.
//
// Decide looks at the state and one command and answers with events or a rejection; Evolve
// folds one event into the state. Both are pure: time and ids come in with the message, no
// clock, no I/O, no randomness. One goroutine at a time calls them for a given stream, but
// different streams are decided at the same time, so they must not touch shared memory.
//
// The state is kept encoded between commands, under the Avro schema <category>.State, so a
// decider never shares memory with an earlier call.
package decider

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// Message is a command on its way into Decide or an event on its way into Evolve.
type Message struct {
	Type          string
	ID            string // the command's idempotency key, or the event's id
	Stream        event.StreamID
	Version       event.Version // of the event; for a command the version of the stream it is decided at
	Time          time.Time     // business time, UTC
	CorrelationID string
	CausationID   string
	UserID        string
	Data          any // a value of the Go type registered for Type
}

// Decision is what Decide answers: events, a rejection, or neither (accepted, nothing to do).
// Made by Emit and Reject.
type Decision struct {
	events    []any
	rejection *Rejection
}

// Rejection is a business refusal: an outcome, not an error.
type Rejection struct {
	Code    string // short, stable, for programs
	Message string // for people
}

// Emit accepts with these events, each a value of a registered event type. Without any, the
// command is accepted and leaves nothing.
func Emit(events ...any) (Decision, error) { return Decision{events: events}, nil }

// Reject refuses the command. It is asked again if the same command id comes again.
func Reject(code, message string) (Decision, error) {
	return Decision{rejection: &Rejection{Code: code, Message: message}}, nil
}

// Rejectf is Reject with a formatted message.
func Rejectf(code, format string, args ...any) (Decision, error) {
	return Reject(code, fmt.Sprintf(format, args...))
}

// Events returns the decided events in order.
func (d Decision) Events() []any { return d.events }

// Rejection returns the refusal, or nil.
func (d Decision) Rejection() *Rejection { return d.rejection }

// Types lists the commands and events of a category.
type Types []codec.TypeDef

// TypeOption adds to a type's registration.
type TypeOption func(*codec.TypeDef)

// Upcast registers how the generic form of schema version from becomes that of from+1.
func Upcast(from int, f codec.Upcaster) TypeOption {
	return func(t *codec.TypeDef) {
		if t.Upcasters == nil {
			t.Upcasters = map[int]codec.Upcaster{}
		}
		t.Upcasters[from] = f
	}
}

// Command registers T for a command type at a schema version.
func Command[T any](name string, version int, opts ...TypeOption) codec.TypeDef {
	return typeDef[T](name, version, event.KindCommand, opts)
}

// Event registers T for an event type at a schema version.
func Event[T any](name string, version int, opts ...TypeOption) codec.TypeDef {
	return typeDef[T](name, version, event.KindEvent, opts)
}

func typeDef[T any](name string, version int, kind event.Kind, opts []TypeOption) codec.TypeDef {
	t := codec.TypeDef{Name: name, Version: version, Kind: kind, GoType: reflect.TypeFor[T]()}
	for _, opt := range opts {
		opt(&t)
	}
	return t
}

// Spec is a category's decider over a state of type S, a struct with `avro` tags.
type Spec[S any] struct {
	Category     string
	StateVersion int // the version of the schema <category>.State that S binds to
	Types        Types
	Initial      func() S // nil means the zero value
	Decide       func(state S, command Message) (Decision, error)
	Evolve       func(state S, event Message) S
}

// Any is a Spec of some state type.
type Any interface {
	// Definition returns the decider with its state type erased.
	Definition() Definition
}

// Definition is a decider whose state is passed as `any` holding an S.
type Definition struct {
	Category     string
	StateVersion int
	StateType    reflect.Type
	Types        Types
	Initial      func() any
	Decide       func(state any, command Message) (Decision, error)
	Evolve       func(state any, event Message) any
}

// Definition implements Any.
func (s Spec[S]) Definition() Definition {
	d := Definition{
		Category: s.Category, StateVersion: s.StateVersion, StateType: reflect.TypeFor[S](), Types: s.Types,
		Initial: func() any {
			if s.Initial != nil {
				return s.Initial()
			}
			var zero S
			return zero
		},
	}
	if s.Decide != nil {
		d.Decide = func(state any, command Message) (Decision, error) { return s.Decide(state.(S), command) }
	}
	if s.Evolve != nil {
		d.Evolve = func(state any, e Message) any { return s.Evolve(state.(S), e) }
	}
	return d
}

// StateType is the registered type of a category's state.
func StateType(category string) string { return category + ".State" }

// Validate checks a definition by itself and joins all faults.
func (d Definition) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("decider of category %q: "+format, append([]any{d.Category}, args...)...))
	}
	if d.Category == "" {
		fault("Category is empty")
	}
	if d.StateVersion < 1 {
		fault("StateVersion is %d; count from 1", d.StateVersion)
	}
	if d.Decide == nil {
		fault("Decide is nil")
	}
	if d.Evolve == nil {
		fault("Evolve is nil")
	}
	if d.StateType != nil && d.StateType.Kind() != reflect.Struct {
		fault("state type %s is no struct", d.StateType)
	}
	seen := map[string]bool{}
	goTypes := map[reflect.Type]string{}
	for _, t := range d.Types {
		if seen[t.Name] {
			fault("type %s is registered twice", t.Name)
		}
		seen[t.Name] = true
		if len(t.Name) <= len(d.Category)+1 || t.Name[:len(d.Category)+1] != d.Category+"." {
			fault("type %s: want %s.<Name>", t.Name, d.Category)
		}
		if t.GoType == nil || t.GoType.Kind() != reflect.Struct {
			fault("type %s binds to %v, which is no struct", t.Name, t.GoType)
			continue
		}
		if other, twice := goTypes[t.GoType]; twice {
			fault("Go type %s is registered for %s and %s", t.GoType, other, t.Name)
		}
		goTypes[t.GoType] = t.Name
	}
	return errors.Join(faults...)
}
