// Package decidertest tests deciders as what they are, pure functions: given these events, when
// this command comes, then these events (or that rejection) follow.
//
//	decidertest.New(t, orders, decidertest.Schemas(schemas)).
//		Given(Placed{Total: 10}).
//		When(Cancel{Reason: "late"}).
//		ThenEvents(Cancelled{Reason: "late"})
//
// Beside what a test asks, every step checks what the engine relies on:
//
//   - the Go types of commands and events are registered, each as what it is used for;
//   - Decide and Evolve answer the same twice, and do not write into the state or the message;
//   - with Schemas: commands, events and every state on the way survive encoding and decoding
//     by their Avro schemas, since the engine keeps states encoded between commands.
//
// A Scenario is immutable: one may be the beginning of many tests. It stands for one stream.
// Nothing here starts a goroutine.
package decidertest

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// TB is what is used of a *testing.T.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Epoch is the time of a scenario's first message. Each later one is Step after the one before
// it, unless At says otherwise.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Step is the time between two messages of a scenario.
const Step = time.Second

// StreamID is the id of a scenario's stream, unless OnStream says otherwise.
const StreamID = "test-1"

// Option changes a message from what a scenario would give it.
type Option func(*decider.Message)

// At sets the message's business time.
func At(t time.Time) Option { return func(m *decider.Message) { m.Time = t.UTC() } }

// After sets the message's business time, counted from Epoch.
func After(d time.Duration) Option { return At(Epoch.Add(d)) }

// WithID sets the message's id.
func WithID(id string) Option { return func(m *decider.Message) { m.ID = id } }

// OnStream sets the id of the message's stream.
func OnStream(id string) Option { return func(m *decider.Message) { m.Stream.ID = id } }

// ByUser sets the message's user.
func ByUser(userID string) Option { return func(m *decider.Message) { m.UserID = userID } }

// Fact is an event for Given with options of its own; made by On.
type Fact struct {
	data any
	opts []Option
}

// On gives an event of Given its own time, id or stream.
func On(eventData any, opts ...Option) Fact { return Fact{data: eventData, opts: opts} }

// Setting changes how a scenario checks; made by Schemas.
type Setting func(*settings)

type settings struct{ load loader }

// Scenario is a stream's past under one decider.
type Scenario[S any] struct {
	t       TB
	def     decider.Definition
	types   map[reflect.Type]codec.TypeDef
	avro    *roundTripper // nil without Schemas
	state   S
	version event.Version
	next    time.Time
}

// New begins a scenario with an empty stream. It fails the test when the decider is not valid.
func New[S any](t TB, spec decider.Spec[S], with ...Setting) Scenario[S] {
	t.Helper()
	def := spec.Definition()
	if err := def.Validate(); err != nil {
		t.Fatalf("the decider is not valid: %v", err)
	}
	var set settings
	for _, apply := range with {
		apply(&set)
	}
	s := Scenario[S]{t: t, def: def, types: map[reflect.Type]codec.TypeDef{}, next: Epoch, state: def.Initial().(S)}
	for _, typ := range def.Types {
		s.types[typ.GoType] = typ
	}
	if set.load != nil {
		var err error
		if s.avro, err = set.load(def); err != nil {
			t.Fatalf("schemas of category %s: %v", def.Category, err)
		}
	}
	return s
}

// Given adds events to the stream's past: values of registered event types, or Facts.
func (s Scenario[S]) Given(events ...any) Scenario[S] {
	s.t.Helper()
	for _, e := range events {
		fact, ok := e.(Fact)
		if !ok {
			fact = Fact{data: e}
		}
		s = s.apply(s.message(fact.data, event.KindEvent, fact.opts))
	}
	return s
}

// When decides one command, a value of a registered command type.
func (s Scenario[S]) When(command any, opts ...Option) Outcome[S] {
	s.t.Helper()
	m := s.message(command, event.KindCommand, opts)
	s.survives(m.Type, m.Data)
	decision, err := s.decide(m)
	again, errAgain := s.decide(m)
	if got, first := show(again, errAgain), show(decision, err); got != first {
		s.t.Fatalf("Decide is not pure: the same state and %s gave two answers\n%s", m.Type, diff(got, first))
	}
	if decision.Rejection() != nil && decision.Rejection().Code == "" {
		s.t.Fatalf("%s is rejected without a code: %q", m.Type, decision.Rejection().Message)
	}
	after := s
	if err == nil {
		for i, e := range decision.Events() {
			after = after.apply(after.message(e, event.KindEvent, []Option{
				At(m.Time), WithID(event.DeriveID(m.Stream, m.ID, i)), OnStream(m.Stream.ID), ByUser(m.UserID),
			}))
		}
	}
	return Outcome[S]{before: s, after: after, command: m, decision: decision, err: err}
}

// State returns the state that the stream's past folds to.
func (s Scenario[S]) State() S { return s.state }

// ThenState checks the state that the stream's past folds to.
func (s Scenario[S]) ThenState(want S) Scenario[S] {
	s.t.Helper()
	if got, want := render(s.state), render(want); got != want {
		s.t.Fatalf("state differs\n%s", diff(got, want))
	}
	return s
}

func (s Scenario[S]) message(data any, kind event.Kind, opts []Option) decider.Message {
	s.t.Helper()
	typ, ok := s.types[reflect.TypeOf(data)]
	switch {
	case !ok:
		s.t.Fatalf("%T is no registered type of category %s (a value is wanted, no pointer; registered: %s)", data, s.def.Category, s.registered(kind))
	case typ.Kind != kind:
		s.t.Fatalf("%T is registered as %s, here it is used as %s", data, typ.Kind, kind)
	}
	m := decider.Message{
		Type: typ.Name, Stream: event.StreamID{Category: s.def.Category, ID: StreamID}, Version: s.version,
		Time: s.next, Data: data,
	}
	if kind == event.KindEvent {
		m.Version++
	}
	m.ID = fmt.Sprintf("%s-%d", kind, s.version+1)
	for _, opt := range opts {
		opt(&m)
	}
	return m
}

func (s Scenario[S]) registered(kind event.Kind) []string {
	var names []string
	for goType, typ := range s.types {
		if typ.Kind == kind {
			names = append(names, goType.String())
		}
	}
	slices.Sort(names)
	return names
}

func (s Scenario[S]) decide(m decider.Message) (decider.Decision, error) {
	s.t.Helper()
	before := render(s.state) + render(m)
	decision, err := s.def.Decide(s.state, m)
	if after := render(s.state) + render(m); after != before {
		s.t.Fatalf("Decide is not pure: it changed the state or the message of %s\n%s", m.Type, diff(after, before))
	}
	return decision, err
}

// apply folds one event into the stream's past.
func (s Scenario[S]) apply(m decider.Message) Scenario[S] {
	s.t.Helper()
	s.survives(m.Type, m.Data)
	before := render(s.state) + render(m)
	state := s.def.Evolve(s.state, m)
	shown := render(state)
	again := render(s.def.Evolve(s.state, m))
	if after := render(s.state) + render(m); after != before {
		s.t.Fatalf("Evolve is not pure: it changed the state or the message of %s\n%s", m.Type, diff(after, before))
	}
	if again != shown || render(state) != shown {
		s.t.Fatalf("Evolve is not pure: the same state and %s gave two states\n%s", m.Type, diff(again, shown))
	}
	s.survives(decider.StateType(s.def.Category), state)
	s.state = state.(S)
	s.version = m.Version
	s.next = m.Time.Add(Step)
	return s
}

// survives checks that a value comes back from its Avro encoding as it was.
func (s Scenario[S]) survives(typ string, value any) {
	s.t.Helper()
	if s.avro == nil {
		return
	}
	back, err := s.avro.roundTrip(typ, value)
	if err != nil {
		s.t.Fatalf("%s does not survive Avro: %v", typ, err)
	}
	if got, want := render(back), render(value); got != want {
		s.t.Fatalf("%s comes back from Avro as something else\n%s", typ, diff(got, want))
	}
}

// show renders a decision whole.
func show(d decider.Decision, err error) string {
	switch {
	case err != nil:
		return "error: " + err.Error()
	case d.Rejection() != nil:
		return fmt.Sprintf("rejected(%s): %s", d.Rejection().Code, d.Rejection().Message)
	case len(d.Events()) == 0:
		return "accepted, no events"
	default:
		return renderAll(d.Events())
	}
}
