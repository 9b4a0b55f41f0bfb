// Package execution is the write side of one execution of a workflow: a start, the nodes that
// ran, and one end.
//
// The rules: nothing comes before the start or after the end; time never goes back, so a command
// whose business time is before that of the last event is refused (the same time is fine); a
// node may run any number of times. That the workflow exists is not checked: it is another
// aggregate.
package execution

import (
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// Codes of rejections, beside those of package rule.
const (
	CodeEnded        = "ended"          // the execution has ended
	CodeTimeGoesBack = "time-goes-back" // the command's time is before the last event's
)

// Limits of an execution.
const (
	NodeBytesMax     = 255
	NodesRecordedMax = 1_000_000
	DurationMsMax    = int64(100 * 365 * 24 * 60 * 60 * 1000) // of one node's run: about 100 years
)

// Decider decides commands on one execution.
var Decider = decider.Spec[State]{
	Category:     Category,
	StateVersion: 1,
	Types:        Types,
	Initial:      func() State { return State{Status: StatusNone} },
	Decide:       decide,
	Evolve:       evolve,
}

func decide(s State, m decider.Message) (decider.Decision, error) {
	if c, ok := m.Data.(StartExecution); ok {
		return start(s, c)
	}
	switch {
	case s.Status == StatusNone:
		return decider.Reject(rule.CodeNotFound, "there is no such execution: start it first")
	case s.Status != StatusRunning:
		return decider.Rejectf(CodeEnded, "the execution has ended (%s)", s.Status)
	case stamp(m.Time).Before(s.LastAt):
		return decider.Rejectf(CodeTimeGoesBack, "the command's time %s is before that of the last event, %s",
			event.FormatTime(m.Time), event.FormatTime(s.LastAt))
	}
	switch c := m.Data.(type) {
	case RecordNode:
		return recordNode(s, c)
	case CompleteExecution:
		return complete(s, c, m.Time)
	case FailExecution:
		return fail(s, c, m.Time)
	case CancelExecution:
		return cancel(s, c, m.Time)
	default:
		return decider.Decision{}, fmt.Errorf("execution: no rule for command %s (%T)", m.Type, m.Data)
	}
}

func start(s State, c StartExecution) (decider.Decision, error) {
	if s.Status != StatusNone {
		return decider.Reject(rule.CodeExists, "the execution exists already")
	}
	if b := rule.First(checkWorkflowID(c.WorkflowID), rule.Map("input", c.Input)); b != nil {
		return b.Reject()
	}
	return decider.Emit(ExecutionStarted(c))
}

func checkWorkflowID(id string) *rule.Broken {
	err := event.ValidateID(id)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, event.ErrIDTooLong):
		return &rule.Broken{Code: rule.CodeLimit, Message: "workflowId: " + err.Error()}
	default:
		return &rule.Broken{Code: rule.CodeValue, Message: "workflowId must be a workflow's id: 1 to 255 bytes of UTF-8 without control characters"}
	}
}

func recordNode(s State, c RecordNode) (decider.Decision, error) {
	b := rule.First(
		rule.Name("node", c.Node, NodeBytesMax),
		checkOutcome(c.Outcome),
		checkDuration(c.DurationMs),
		rule.Map("attributes", c.Attributes),
	)
	switch {
	case b != nil:
		return b.Reject()
	case s.NodesExecuted >= NodesRecordedMax:
		return decider.Rejectf(rule.CodeLimit, "the execution has %d recorded nodes, the most that are allowed", NodesRecordedMax)
	}
	return decider.Emit(NodeRecorded{
		WorkflowID: s.WorkflowID, Node: c.Node, Outcome: c.Outcome, DurationMs: c.DurationMs, Attributes: c.Attributes,
	})
}

func checkOutcome(o Outcome) *rule.Broken {
	if o == OutcomeSucceeded || o == OutcomeFailed {
		return nil
	}
	return &rule.Broken{Code: rule.CodeValue, Message: fmt.Sprintf("outcome %.40q: want succeeded or failed", o)}
}

func checkDuration(ms int64) *rule.Broken {
	switch {
	case ms < 0:
		return &rule.Broken{Code: rule.CodeValue, Message: fmt.Sprintf("durationMs is %d, below zero", ms)}
	case ms > DurationMsMax:
		return &rule.Broken{Code: rule.CodeLimit, Message: fmt.Sprintf("durationMs is %d, at most %d are allowed", ms, DurationMsMax)}
	}
	return nil
}

func complete(s State, c CompleteExecution, at time.Time) (decider.Decision, error) {
	if b := rule.Map("output", c.Output); b != nil {
		return b.Reject()
	}
	return decider.Emit(ExecutionCompleted{
		WorkflowID: s.WorkflowID, StartedAt: s.StartedAt, DurationMs: s.durationMs(at),
		NodesExecuted: s.NodesExecuted, NodesFailed: s.NodesFailed, Output: c.Output,
	})
}

func fail(s State, c FailExecution, at time.Time) (decider.Decision, error) {
	if b := rule.Text("reason", c.Reason, rule.ReasonBytesMax); b != nil {
		return b.Reject()
	}
	return decider.Emit(ExecutionFailed{
		WorkflowID: s.WorkflowID, StartedAt: s.StartedAt, DurationMs: s.durationMs(at),
		NodesExecuted: s.NodesExecuted, NodesFailed: s.NodesFailed, Reason: c.Reason,
	})
}

func cancel(s State, c CancelExecution, at time.Time) (decider.Decision, error) {
	if b := rule.Text("reason", c.Reason, rule.ReasonBytesMax); b != nil {
		return b.Reject()
	}
	return decider.Emit(ExecutionCancelled{
		WorkflowID: s.WorkflowID, StartedAt: s.StartedAt, DurationMs: s.durationMs(at),
		NodesExecuted: s.NodesExecuted, NodesFailed: s.NodesFailed, Reason: c.Reason,
	})
}

// durationMs is the whole milliseconds from the start to end. Both are counted in
// microseconds, since the difference of two times a few centuries apart is no time.Duration.
func (s State) durationMs(end time.Time) int64 {
	return (stamp(end).UnixMicro() - s.StartedAt.UnixMicro()) / 1000
}

func evolve(s State, m decider.Message) State {
	s.LastAt = stamp(m.Time)
	switch e := m.Data.(type) {
	case ExecutionStarted:
		s.Status, s.WorkflowID, s.StartedAt = StatusRunning, e.WorkflowID, s.LastAt
	case NodeRecorded:
		s.NodesExecuted++
		if e.Outcome == OutcomeFailed {
			s.NodesFailed++
		}
	case ExecutionCompleted:
		s.Status = StatusCompleted
	case ExecutionFailed:
		s.Status = StatusFailed
	case ExecutionCancelled:
		s.Status = StatusCancelled
	}
	return s
}

// stamp cuts a time to what the state's schema keeps, so that a state held in memory and one
// read back decide alike.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
