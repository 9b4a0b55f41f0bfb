package decidertest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/decider/decidertest"
)

// A small category for tests of the tests: a box that opens, takes items and closes.
type (
	open   struct{ Size int64 }
	put    struct{ Item string }
	shut   struct{}
	opened struct{ Size int64 }
	filled struct {
		Item string
		At   time.Time
	}
	stray struct{}
	box   struct {
		Open  bool
		Items []string
		Last  time.Time
	}
)

func boxes() decider.Spec[box] {
	return decider.Spec[box]{
		Category: "box", StateVersion: 1,
		Types: decider.Types{
			decider.Command[open]("box.Open", 1), decider.Command[put]("box.Put", 1), decider.Command[shut]("box.Shut", 1),
			decider.Event[opened]("box.Opened", 1), decider.Event[filled]("box.Filled", 1),
		},
		Decide: func(s box, m decider.Message) (decider.Decision, error) {
			switch c := m.Data.(type) {
			case open:
				return decider.Emit(opened(c))
			case put:
				if !s.Open {
					return decider.Reject("closed", "open it first")
				}
				return decider.Emit(filled{Item: c.Item, At: m.Time})
			case shut:
				return decider.Emit()
			}
			return decider.Decision{}, errors.New("no rule")
		},
		Evolve: func(s box, m decider.Message) box {
			s.Last = m.Time
			switch e := m.Data.(type) {
			case opened:
				s.Open = true
			case filled:
				s.Items = append(s.Items[:len(s.Items):len(s.Items)], e.Item)
			}
			return s
		},
	}
}

func TestScenarioFollowsAStream(t *testing.T) {
	t.Parallel()
	begin := decidertest.New(t, boxes())
	begin.When(put{Item: "a"}).ThenRejected("closed")
	opened1 := begin.When(open{Size: 3}).ThenEvents(opened{Size: 3})
	opened1.When(shut{}).ThenNothing()
	later := decidertest.Epoch.Add(time.Hour)
	opened1.When(put{Item: "a"}, decidertest.At(later)).
		ThenEvents(filled{Item: "a", At: later}).
		ThenState(box{Open: true, Items: []string{"a"}, Last: later})
	if got := begin.State().Open; got {
		t.Errorf("the beginning of the scenario: got open %v, want it unchanged", got)
	}
}

func TestGivenTakesOneStepPerEvent(t *testing.T) {
	t.Parallel()
	s := decidertest.New(t, boxes()).Given(opened{}, decidertest.On(filled{Item: "x"}, decidertest.After(time.Minute)))
	s.When(put{Item: "y"}).ThenEvents(filled{Item: "y", At: decidertest.Epoch.Add(time.Minute + decidertest.Step)})
}

// failure is what a recorder's Fatalf ends a test with.
type failure struct{ text string }

type recorder struct{}

func (recorder) Helper() {}
func (recorder) Fatalf(format string, args ...any) {
	panic(failure{fmt.Sprintf(format, args...)})
}

// fails runs a test with a recorder and returns what it failed with, or "".
func fails(test func(decidertest.TB)) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = r.(failure).text
		}
	}()
	test(recorder{})
	return ""
}

func TestScenarioFails(t *testing.T) {
	t.Parallel()
	var count int64
	cases := []struct {
		name string
		test func(decidertest.TB)
		want []string
	}{
		{"when another event follows", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(open{Size: 3}).ThenEvents(opened{Size: 4})
		}, []string{"box.Open", "-   Size: 3", "+   Size: 4"}},
		{"when fewer events follow", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(open{}).ThenEvents(opened{}, opened{})
		}, []string{"+ decidertest_test.opened{"}},
		{"when a rejection was wanted", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(open{}).ThenRejected("closed")
		}, []string{"opened{", "want rejected(closed)"}},
		{"when another code was wanted", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(put{}).ThenRejected("full")
		}, []string{"rejected(closed): open it first", "want rejected(full)"}},
		{"when events were wanted and a rejection came", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(put{}).ThenEvents(filled{})
		}, []string{"- rejected(closed)"}},
		{"when nothing was wanted and events came", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(open{}).ThenNothing()
		}, []string{"+ accepted, no events"}},
		{"when no error came", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(open{}).ThenError("no rule")
		}, []string{"want an error"}},
		{"when no events are wanted by ThenEvents", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(shut{}).ThenEvents()
		}, []string{"ThenNothing"}},
		{"when the state differs", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).Given(opened{}).ThenState(box{Open: false, Last: decidertest.Epoch})
		}, []string{"-   Open: true", "+   Open: false"}},
		{"when a type is not registered", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).Given(stray{})
		}, []string{"stray is no registered type", "opened"}},
		{"when a pointer is passed", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).When(&open{})
		}, []string{"no pointer"}},
		{"when a command is given as an event", func(tb decidertest.TB) {
			decidertest.New(tb, boxes()).Given(open{})
		}, []string{"registered as command", "used as event"}},
		{"when an event that is not registered is emitted", func(tb decidertest.TB) {
			spec := boxes()
			spec.Decide = func(box, decider.Message) (decider.Decision, error) { return decider.Emit(stray{}) }
			decidertest.New(tb, spec).When(open{})
		}, []string{"stray is no registered type"}},
		{"when a rejection has no code", func(tb decidertest.TB) {
			spec := boxes()
			spec.Decide = func(box, decider.Message) (decider.Decision, error) { return decider.Reject("", "no") }
			decidertest.New(tb, spec).When(open{})
		}, []string{"without a code"}},
		{"when Decide answers differently", func(tb decidertest.TB) {
			spec := boxes()
			spec.Decide = func(box, decider.Message) (decider.Decision, error) {
				count++
				return decider.Emit(opened{Size: count})
			}
			decidertest.New(tb, spec).When(open{})
		}, []string{"Decide is not pure"}},
		{"when Decide writes into the state", func(tb decidertest.TB) {
			spec := boxes()
			spec.Decide = func(s box, _ decider.Message) (decider.Decision, error) {
				s.Items[0] = "changed"
				return decider.Emit()
			}
			decidertest.New(tb, spec).Given(opened{}, filled{Item: "a"}).When(shut{})
		}, []string{"Decide is not pure", `"changed"`}},
		{"when Evolve writes into the state", func(tb decidertest.TB) {
			spec := boxes()
			spec.Evolve = func(s box, m decider.Message) box {
				if len(s.Items) > 0 {
					s.Items[0] = "changed"
					return s
				}
				s.Items = []string{"a"}
				return s
			}
			decidertest.New(tb, spec).Given(opened{}, opened{})
		}, []string{"Evolve is not pure"}},
		{"when the decider is not valid", func(tb decidertest.TB) {
			spec := boxes()
			spec.StateVersion = 0
			decidertest.New(tb, spec)
		}, []string{"StateVersion"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := fails(c.test)
			if got == "" {
				t.Fatal("got a test that passes, want one that fails")
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("got the message\n%s\nwant %q in it", got, want)
				}
			}
		})
	}
}

func TestErrorFromDecideIsNoRejection(t *testing.T) {
	t.Parallel()
	spec := boxes()
	spec.Decide = func(box, decider.Message) (decider.Decision, error) {
		return decider.Decision{}, errors.New("no rule for it")
	}
	decidertest.New(t, spec).When(open{}).ThenError("no rule")
	if got := fails(func(tb decidertest.TB) { decidertest.New(tb, spec).When(open{}).ThenRejected("closed") }); !strings.Contains(got, "error: no rule for it") {
		t.Errorf("got %q, want the error named", got)
	}
}
