package decider_test

import (
	"strings"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

type (
	state  struct{ Count int64 }
	add    struct{ N int64 }
	added  struct{ N int64 }
	number int64
)

func counter() decider.Spec[state] {
	return decider.Spec[state]{
		Category: "counter", StateVersion: 1,
		Types: decider.Types{decider.Command[add]("counter.Add", 1), decider.Event[added]("counter.Added", 1)},
		Decide: func(s state, m decider.Message) (decider.Decision, error) {
			if m.Data.(add).N < 0 {
				return decider.Rejectf("value", "%d is below zero", m.Data.(add).N)
			}
			return decider.Emit(added(m.Data.(add)))
		},
		Evolve: func(s state, m decider.Message) state { return state{s.Count + m.Data.(added).N} },
	}
}

func TestDefinitionErasesTheState(t *testing.T) {
	t.Parallel()
	def := counter().Definition()
	if err := def.Validate(); err != nil {
		t.Fatalf("got %v, want a valid definition", err)
	}
	decision, err := def.Decide(def.Initial(), decider.Message{Data: add{N: 2}})
	if err != nil || len(decision.Events()) != 1 || decision.Events()[0] != (added{N: 2}) {
		t.Fatalf("Decide: got %v, %v, want one event added{2}", decision.Events(), err)
	}
	if got := def.Evolve(state{Count: 1}, decider.Message{Data: added{N: 2}}); got != (state{Count: 3}) {
		t.Errorf("Evolve: got %v, want count 3", got)
	}
	if got := def.StateType.Name(); got != "state" {
		t.Errorf("StateType: got %s, want state", got)
	}
}

func TestInitialIsAskedForWhereGiven(t *testing.T) {
	t.Parallel()
	spec := counter()
	spec.Initial = func() state { return state{Count: 7} }
	if got := spec.Definition().Initial(); got != (state{Count: 7}) {
		t.Errorf("got %v, want count 7", got)
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	rejected, err := counter().Decide(state{}, decider.Message{Data: add{N: -1}})
	if err != nil || rejected.Rejection() == nil {
		t.Fatalf("got %v, %v, want a rejection", rejected, err)
	}
	if got, want := *rejected.Rejection(), (decider.Rejection{Code: "value", Message: "-1 is below zero"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if nothing, _ := decider.Emit(); nothing.Rejection() != nil || len(nothing.Events()) != 0 {
		t.Errorf("got %v, want neither events nor a rejection", nothing)
	}
}

func TestTypesCarryTheirRegistration(t *testing.T) {
	t.Parallel()
	up := func(m map[string]any) (map[string]any, error) { return m, nil }
	typ := decider.Event[added]("counter.Added", 3, decider.Upcast(1, up), decider.Upcast(2, up))
	if typ.Kind != event.KindEvent || typ.Version != 3 || typ.GoType.Name() != "added" || len(typ.Upcasters) != 2 {
		t.Errorf("got %+v, want an event of version 3 with two upcasters", typ)
	}
	if got := decider.Command[add]("counter.Add", 1).Kind; got != event.KindCommand {
		t.Errorf("got kind %s, want command", got)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		change func(*decider.Spec[state])
		want   []string
	}{
		{"nothing set", func(s *decider.Spec[state]) { *s = decider.Spec[state]{} },
			[]string{"Category is empty", "StateVersion is 0", "Decide is nil", "Evolve is nil"}},
		{"a type registered twice", func(s *decider.Spec[state]) {
			s.Types = decider.Types{decider.Event[added]("counter.Added", 1), decider.Event[add]("counter.Added", 1)}
		}, []string{"counter.Added is registered twice"}},
		{"a Go type registered twice", func(s *decider.Spec[state]) {
			s.Types = decider.Types{decider.Event[added]("counter.Added", 1), decider.Event[added]("counter.Other", 1)}
		}, []string{"registered for counter.Added and counter.Other"}},
		{"a type of another category", func(s *decider.Spec[state]) {
			s.Types = decider.Types{decider.Event[added]("order.Added", 1)}
		}, []string{"want counter.<Name>"}},
		{"a type without a name", func(s *decider.Spec[state]) {
			s.Types = decider.Types{decider.Event[added]("counter.", 1)}
		}, []string{"want counter.<Name>"}},
		{"a type that is no struct", func(s *decider.Spec[state]) {
			s.Types = decider.Types{decider.Event[number]("counter.Added", 1)}
		}, []string{"which is no struct"}},
		{"a type without a Go type", func(s *decider.Spec[state]) {
			s.Types = decider.Types{codec.TypeDef{Name: "counter.Added", Version: 1}}
		}, []string{"which is no struct"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			spec := counter()
			c.change(&spec)
			err := spec.Definition().Validate()
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestAStateThatIsNoStructIsRefused(t *testing.T) {
	t.Parallel()
	spec := decider.Spec[number]{Category: "counter", StateVersion: 1}
	if err := spec.Definition().Validate(); err == nil || !strings.Contains(err.Error(), "is no struct") {
		t.Errorf("got %v, want the state's type refused", err)
	}
}
