package decidertest

import (
	"strings"

	"github.com/foldstream/foldstream/pkg/decider"
)

// Outcome is what a decider answered to one command.
type Outcome[S any] struct {
	before, after Scenario[S]
	command       decider.Message
	decision      decider.Decision
	err           error
}

// ThenEvents checks that the command was accepted with exactly these events, in order, and
// returns the scenario that goes on after them.
func (o Outcome[S]) ThenEvents(want ...any) Scenario[S] {
	o.before.t.Helper()
	if len(want) == 0 {
		o.before.t.Fatalf("ThenEvents wants no events: use ThenNothing, which says so")
	}
	o.expect(renderAll(want))
	return o.after
}

// ThenNothing checks that the command was accepted and left no event.
func (o Outcome[S]) ThenNothing() Scenario[S] {
	o.before.t.Helper()
	o.expect(show(decider.Decision{}, nil))
	return o.after
}

// ThenRejected checks that the command was refused with this code.
func (o Outcome[S]) ThenRejected(code string) Scenario[S] {
	o.before.t.Helper()
	if r := o.decision.Rejection(); o.err != nil || r == nil || r.Code != code {
		o.before.t.Fatalf("%s: got %s\nwant rejected(%s)", o.command.Type, show(o.decision, o.err), code)
	}
	return o.after
}

// ThenError checks that Decide failed, with this text in its error: a fault of the program, not
// a refusal.
func (o Outcome[S]) ThenError(text string) {
	o.before.t.Helper()
	if o.err == nil || !strings.Contains(o.err.Error(), text) {
		o.before.t.Fatalf("%s: got %s\nwant an error with %q in it", o.command.Type, show(o.decision, o.err), text)
	}
}

// Decision returns what Decide answered.
func (o Outcome[S]) Decision() (decider.Decision, error) { return o.decision, o.err }

// Next returns the scenario that goes on after the command, whatever became of it.
func (o Outcome[S]) Next() Scenario[S] { return o.after }

func (o Outcome[S]) expect(want string) {
	o.before.t.Helper()
	if got := show(o.decision, o.err); got != want {
		o.before.t.Fatalf("%s: the answer differs\n%s", o.command.Type, diff(got, want))
	}
}
