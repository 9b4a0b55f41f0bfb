package processlog_test

import (
	"testing"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// world decides commands as the engine does, in memory: duplicates first, then the expected
// version, then the decider.
type world struct {
	t        *testing.T
	deciders map[string]decider.Definition
	streams  map[event.StreamID]*stream
	outcomes map[string]int // accepted, duplicate, conflict, and rejections by code
	forget   bool           // no command id is remembered
}

type stream struct {
	state   any
	version event.Version
	seen    map[string]bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, streams: map[event.StreamID]*stream{}, outcomes: map[string]int{},
		deciders: map[string]decider.Definition{
			workflow.Category:  workflow.Decider.Definition(),
			execution.Category: execution.Decider.Definition(),
		},
	}
}

func (w *world) send(c processlog.Command) {
	w.t.Helper()
	id := event.StreamID{Category: c.Category, ID: c.StreamID}
	if err := event.ValidateID(c.StreamID); err != nil {
		w.t.Fatalf("%s: %v", id, err)
	}
	def := w.deciders[c.Category]
	s := w.streams[id]
	if s == nil {
		s = &stream{state: def.Initial(), seen: map[string]bool{}}
		w.streams[id] = s
	}
	switch {
	case s.seen[c.ID] && !w.forget:
		w.outcomes["duplicate"]++
		return
	case !c.Expected.Holds(s.version):
		w.outcomes["conflict"]++
		return
	}
	decision, err := def.Decide(s.state, decider.Message{Type: c.Type, ID: c.ID, Stream: id, Version: s.version, Time: c.Time, Data: c.Data})
	if err != nil {
		w.t.Fatalf("%s %s: %v", id, c.Type, err)
	}
	if r := decision.Rejection(); r != nil {
		w.outcomes[r.Code]++
		return
	}
	w.outcomes["accepted"]++
	s.seen[c.ID] = true
	for _, e := range decision.Events() {
		s.version++
		s.state = def.Evolve(s.state, decider.Message{Stream: id, Version: s.version, Time: c.Time, Data: e})
	}
}

// statuses counts the executions by status.
func (w *world) statuses() map[execution.Status]int {
	counts := map[execution.Status]int{}
	for _, s := range w.streams {
		if state, ok := s.state.(execution.State); ok {
			counts[state.Status]++
		}
	}
	return counts
}
