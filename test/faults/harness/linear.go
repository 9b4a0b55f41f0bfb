package harness

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/foldstream/foldstream/test/faults/project"
)

// linearTimeout bounds the check of one stream. One that takes longer is a violation: a history
// that cannot be judged proves nothing.
const linearTimeout = 20 * time.Second

// operation is one sending as the model sees it. The model of a stream is a register that holds
// its version; the log has told what each version holds, so that a request's own versions and the
// balance at any version are known.
//
//	accepted first..last   at version first-1, where the expected version holds; then at last
//	duplicate first..last  at last or beyond; or, where no other sending can have left the events,
//	                       as accepted: its record is there twice
//	conflict actual        at exactly that version, where the expected version does not hold
//	rejected overdrawn     where the expected version holds and the balance is too low
//	no answer              as accepted, at any time from the call on, where the log has its events
type operation struct {
	outcome     string
	expected    string
	first, last int64 // of the request's events, 0 where it has none
	actual      int64
	change      int64   // of the balance
	balances    []int64 // by version; nil for a log
	only        bool    // some sending of the request has no answer: a duplicate is one
}

// step is the model's transition.
func (o operation) step(version int64) (bool, int64) {
	stored := o.first > 0 && version >= o.last
	effect := o.first > 0 && version == o.first-1 && holds(o.expected, version)
	switch o.outcome {
	case Accepted, Unknown:
		return effect, o.last
	case Duplicate:
		if effect && !o.only {
			return true, o.last
		}
		return stored, version
	case Conflict:
		return !stored && version == o.actual && !holds(o.expected, version), version
	case Rejected:
		return !stored && holds(o.expected, version) && int(version) < len(o.balances) && o.balances[version]+o.change < 0, version
	}
	return false, version
}

func holds(expected string, version int64) bool {
	switch expected {
	case "", "any":
		return true
	case "none":
		return version == 0
	case "exists":
		return version > 0
	}
	n, err := strconv.ParseInt(expected, 10, 64)
	return err == nil && n == version
}

var registerModel = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := input.(operation).step(state.(int64))
		return ok, next
	},
}

// checkHistory demands that each stream's history is linearizable: that every answer was true at
// some moment between the sending and the answer.
func checkHistory(r *Run, x *index) []Violation {
	histories := map[string][]porcupine.Operation{}
	open := map[string]*porcupine.Operation{} // by request
	for _, s := range r.Sendings {
		answer, definite := s.Definite()
		if s.Kind == KindPoison || s.Direct == directNobody || (definite && answer.Outcome == Invalid) {
			continue // no effect, and no word on the version
		}
		key := s.Category + "/" + s.Stream
		if definite {
			histories[key] = append(histories[key], porcupine.Operation{ClientId: s.Client, Input: x.operation(s, answer), Call: int64(s.Called), Return: int64(answer.At)})
		}
		if (definite && x.copies[attemptKey{s.ID, s.Attempt}] < 2) || x.accepted[s.ID] || len(x.byCommand[s.ID]) == 0 {
			continue
		}
		// Of all sendings of a request without an answer, one may have left the events that are in
		// the log, at any time since.
		if before := open[s.ID]; before == nil || int64(s.Called) < before.Call {
			open[s.ID] = &porcupine.Operation{ClientId: s.Client, Input: x.operation(s, Reply{Outcome: Unknown}), Call: int64(s.Called), Return: math.MaxInt64}
		}
	}
	for id, op := range open {
		e := x.byCommand[id][0]
		histories[e.Category+"/"+e.Stream] = append(histories[e.Category+"/"+e.Stream], *op)
	}
	var found []Violation
	for _, key := range sortedKeys(histories) {
		reduced, impossible := withoutReads(histories[key])
		if impossible != "" {
			found = append(found, Violation{"history", fmt.Sprintf("%s: no order of its %d operations explains the answers: %s", key, len(histories[key]), impossible)})
			continue
		}
		switch porcupine.CheckOperationsTimeout(registerModel, reduced, linearTimeout) {
		case porcupine.Illegal:
			found = append(found, Violation{"history", fmt.Sprintf("%s: no order of its %d operations explains the answers%s", key, len(histories[key]), describe(histories[key]))})
		case porcupine.Unknown:
			found = append(found, Violation{"history", fmt.Sprintf("%s: its %d operations could not be judged within %s", key, len(histories[key]), linearTimeout)})
		}
	}
	return found
}

// withoutReads takes the answers out of a history that only say what version there was, and narrows
// the times of the operations that changed it instead. Two dozen requests that wait out a long
// failure together would else be tried in all their orders. Nothing is lost by it: since versions
// only grow and each is made by one operation,
//
//	a conflict at version a was true at some moment between its call c and its return r
//	exactly when the operation that made a took effect before r, and the next one after c
//	a duplicate of events up to version b was true at some moment between c and r
//	exactly when the operation that made b took effect before r
//
// What cannot be told apart so (a version that no operation made, or two did) stays. impossible
// names an operation that has no time left.
func withoutReads(history []porcupine.Operation) (reduced []porcupine.Operation, impossible string) {
	reduced = slices.Clone(history)
	makes, follows, twice := map[int64]int{}, map[int64]int{}, map[int64]bool{}
	for i, op := range reduced {
		if o := op.Input.(operation); o.outcome == Accepted || o.outcome == Unknown {
			_, made := makes[o.last]
			_, followed := follows[o.first-1]
			twice[o.last], twice[o.first-1] = twice[o.last] || made, twice[o.first-1] || followed
			makes[o.last], follows[o.first-1] = i, i
		}
	}
	narrow := func(i int, call, back int64) {
		reduced[i].Call, reduced[i].Return = max(reduced[i].Call, call), min(reduced[i].Return, back)
		if o := reduced[i].Input.(operation); reduced[i].Call > reduced[i].Return && impossible == "" {
			impossible = fmt.Sprintf("other answers leave no time for the one that made the versions %d to %d", o.first, o.last)
		}
	}
	keep := make([]bool, len(reduced))
	for i, op := range history {
		o := op.Input.(operation)
		maker, made := makes[o.version()]
		ok, _ := o.step(o.version())
		switch {
		case o.outcome == Conflict && ok && !twice[o.actual] && (made || o.actual == 0):
			if made {
				narrow(maker, 0, op.Return)
			}
			if next, followed := follows[o.actual]; followed {
				narrow(next, op.Call, math.MaxInt64)
			}
		case o.outcome == Duplicate && made && !twice[o.last]:
			narrow(maker, 0, op.Return)
		default:
			keep[i] = true
		}
	}
	rest := reduced[:0]
	for i, op := range reduced {
		if keep[i] {
			rest = append(rest, op)
		}
	}
	return rest, impossible
}

// version is the one that an answer speaks of.
func (o operation) version() int64 {
	if o.outcome == Conflict {
		return o.actual
	}
	return o.last
}

// operation translates a sending and its answer.
func (x *index) operation(s *Sending, answer Reply) operation {
	op := operation{outcome: answer.Outcome, expected: s.Expected, actual: answer.Actual, change: s.Amount * int64(s.Count), only: x.unanswered[s.ID]}
	if events := x.byCommand[s.ID]; len(events) > 0 {
		op.first, op.last = events[0].Version, events[len(events)-1].Version
	}
	if s.Category == project.Account {
		if op.balances = x.balances[s.Category+"/"+s.Stream]; op.balances == nil {
			op.balances = []int64{0}
		}
	}
	if answer.Stands() {
		op.first, op.last = answer.First, answer.Last
	}
	return op
}

// describe lists the longest part of a history that can be explained, and what comes next.
func describe(history []porcupine.Operation) string {
	result, info := porcupine.CheckOperationsVerbose(registerModel, history, linearTimeout)
	if result == porcupine.Ok {
		return ""
	}
	const shown = 6
	longest := []porcupine.Operation{}
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	explained := map[string]int{}
	line := func(o porcupine.Operation) string {
		in := o.Input.(operation)
		ends := "open"
		if o.Return != math.MaxInt64 {
			ends = time.Duration(o.Return).Round(time.Microsecond).String()
		}
		return fmt.Sprintf("client %d [%s, %s] expected %s: %s %d..%d actual %d", o.ClientId, time.Duration(o.Call).Round(time.Microsecond), ends, in.expected, in.outcome, in.first, in.last, in.actual)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "; %d are explained, the last of them:", len(longest))
	for _, o := range longest {
		explained[line(o)]++
	}
	for _, o := range longest[max(0, len(longest)-shown):] {
		b.WriteString("\n      " + line(o))
	}
	b.WriteString("\n    the first that are not:")
	rest := slices.Clone(history)
	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return int(a.Return/1000 - b.Return/1000) })
	n := 0
	for _, o := range rest {
		if explained[line(o)] > 0 {
			explained[line(o)]--
			continue
		}
		if n++; n > shown {
			break
		}
		b.WriteString("\n      " + line(o))
	}
	return b.String()
}
