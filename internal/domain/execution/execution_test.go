package execution_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/decider/decidertest"
	"github.com/foldstream/foldstream/schemas/avro"
)

var (
	started = execution.ExecutionStarted{WorkflowID: "w", Input: map[string]string{"order": "17"}}
	ranWell = execution.NodeRecorded{WorkflowID: "w", Node: "pay", Outcome: execution.OutcomeSucceeded, DurationMs: 5}
	ranBad  = execution.NodeRecorded{WorkflowID: "w", Node: "pay", Outcome: execution.OutcomeFailed, DurationMs: 7}
)

func begin(t decidertest.TB) decidertest.Scenario[execution.State] {
	return decidertest.New(t, execution.Decider, decidertest.Schemas(avro.Files))
}

func TestAnExecutionRuns(t *testing.T) {
	t.Parallel()
	attributes := map[string]string{"resource": "Ann"}
	begin(t).
		When(execution.StartExecution(started)).ThenEvents(started).
		When(execution.RecordNode{Node: "pay", Outcome: execution.OutcomeFailed, DurationMs: 3, Attributes: attributes}).
		ThenEvents(execution.NodeRecorded{WorkflowID: "w", Node: "pay", Outcome: execution.OutcomeFailed, DurationMs: 3, Attributes: attributes}).
		When(execution.RecordNode{Node: "pay", Outcome: execution.OutcomeSucceeded, DurationMs: 5}).ThenEvents(ranWell).
		ThenState(execution.State{
			Status: execution.StatusRunning, WorkflowID: "w", StartedAt: decidertest.Epoch,
			LastAt: decidertest.Epoch.Add(2 * decidertest.Step), NodesExecuted: 2, NodesFailed: 1,
		}).
		When(execution.CompleteExecution{Output: attributes}).
		ThenEvents(execution.ExecutionCompleted{
			WorkflowID: "w", StartedAt: decidertest.Epoch, DurationMs: 3000, NodesExecuted: 2, NodesFailed: 1, Output: attributes,
		})
}

func TestAnExecutionEndsOnce(t *testing.T) {
	t.Parallel()
	running := begin(t).Given(started, ranWell, ranBad)
	cases := []struct {
		name    string
		command any
		want    any
		status  execution.Status
	}{
		{
			"completed", execution.CompleteExecution{},
			execution.ExecutionCompleted{WorkflowID: "w", StartedAt: decidertest.Epoch, DurationMs: 3000, NodesExecuted: 2, NodesFailed: 1},
			execution.StatusCompleted,
		},
		{
			"failed", execution.FailExecution{Reason: "no money"},
			execution.ExecutionFailed{WorkflowID: "w", StartedAt: decidertest.Epoch, DurationMs: 3000, NodesExecuted: 2, NodesFailed: 1, Reason: "no money"},
			execution.StatusFailed,
		},
		{
			"cancelled", execution.CancelExecution{Reason: "withdrawn"},
			execution.ExecutionCancelled{WorkflowID: "w", StartedAt: decidertest.Epoch, DurationMs: 3000, NodesExecuted: 2, NodesFailed: 1, Reason: "withdrawn"},
			execution.StatusCancelled,
		},
	}
	after := []any{
		execution.RecordNode{Node: "pay", Outcome: execution.OutcomeSucceeded}, execution.CompleteExecution{},
		execution.FailExecution{}, execution.CancelExecution{},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ended := running.When(c.command).ThenEvents(c.want)
			if got := ended.State().Status; got != c.status {
				t.Errorf("got status %s, want %s", got, c.status)
			}
			for _, command := range after {
				ended.When(command).ThenRejected(execution.CodeEnded)
			}
			ended.When(execution.StartExecution(started)).ThenRejected(rule.CodeExists)
		})
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	t.Parallel()
	record := execution.RecordNode{Node: "pay", Outcome: execution.OutcomeSucceeded, DurationMs: 5}
	s := begin(t).Given(started, decidertest.On(ranWell, decidertest.After(time.Hour)))
	before := decidertest.After(time.Hour - time.Microsecond)
	for _, command := range []any{record, execution.CompleteExecution{}, execution.FailExecution{}, execution.CancelExecution{}} {
		s.When(command, before).ThenRejected(execution.CodeTimeGoesBack)
	}
	s.When(record, decidertest.After(time.Hour)).ThenEvents(ranWell)
	s.When(record, decidertest.After(time.Hour+time.Microsecond)).ThenEvents(ranWell)
}

// The state keeps microseconds, so within one microsecond no order is known.
func TestTimeIsComparedInMicroseconds(t *testing.T) {
	t.Parallel()
	s := begin(t).Given(started, decidertest.On(ranWell, decidertest.After(time.Hour+900)))
	s.When(execution.CompleteExecution{}, decidertest.After(time.Hour+100)).
		ThenEvents(execution.ExecutionCompleted{WorkflowID: "w", StartedAt: decidertest.Epoch, DurationMs: 3_600_000, NodesExecuted: 1})
}

func TestDurationOverCenturies(t *testing.T) {
	t.Parallel()
	begin(t).Given(decidertest.On(started, decidertest.At(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)))).
		When(execution.CompleteExecution{}, decidertest.At(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC))).
		ThenEvents(execution.ExecutionCompleted{
			WorkflowID: "w", StartedAt: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), DurationMs: 315_537_897_599_999,
		})
}

func TestRejections(t *testing.T) {
	t.Parallel()
	empty := begin(t)
	running := empty.Given(started)
	long := func(n int) string { return strings.Repeat("x", n+1) }
	many := map[string]string{}
	for i := range rule.MapEntriesMax + 1 {
		many[fmt.Sprint(i)] = ""
	}
	ok := execution.OutcomeSucceeded
	cases := []struct {
		name    string
		given   decidertest.Scenario[execution.State]
		command any
		code    string
	}{
		{"start twice", running, execution.StartExecution(started), rule.CodeExists},
		{"start of no workflow", empty, execution.StartExecution{}, rule.CodeValue},
		{"start of a workflow id with a control character", empty, execution.StartExecution{WorkflowID: "a\x00"}, rule.CodeValue},
		{"start of a long workflow id", empty, execution.StartExecution{WorkflowID: long(255)}, rule.CodeLimit},
		{"start with much input", empty, execution.StartExecution{WorkflowID: "w", Input: many}, rule.CodeLimit},
		{"record before the start", empty, execution.RecordNode{Node: "n", Outcome: ok}, rule.CodeNotFound},
		{"complete before the start", empty, execution.CompleteExecution{}, rule.CodeNotFound},
		{"fail before the start", empty, execution.FailExecution{}, rule.CodeNotFound},
		{"cancel before the start", empty, execution.CancelExecution{}, rule.CodeNotFound},
		{"record no node", running, execution.RecordNode{Outcome: ok}, rule.CodeValue},
		{"record a long node", running, execution.RecordNode{Node: long(execution.NodeBytesMax), Outcome: ok}, rule.CodeLimit},
		{"record an unknown outcome", running, execution.RecordNode{Node: "n", Outcome: execution.OutcomeUnknown}, rule.CodeValue},
		{"record a duration below zero", running, execution.RecordNode{Node: "n", Outcome: ok, DurationMs: -1}, rule.CodeValue},
		{"record a duration of centuries", running, execution.RecordNode{Node: "n", Outcome: ok, DurationMs: execution.DurationMsMax + 1}, rule.CodeLimit},
		{"record many attributes", running, execution.RecordNode{Node: "n", Outcome: ok, Attributes: many}, rule.CodeLimit},
		{"record a long attribute name", running, execution.RecordNode{Node: "n", Outcome: ok, Attributes: map[string]string{long(rule.MapKeyBytesMax): ""}}, rule.CodeLimit},
		{"complete with much output", running, execution.CompleteExecution{Output: many}, rule.CodeLimit},
		{"fail with a long reason", running, execution.FailExecution{Reason: long(rule.ReasonBytesMax)}, rule.CodeLimit},
		{"cancel with a long reason", running, execution.CancelExecution{Reason: long(rule.ReasonBytesMax)}, rule.CodeLimit},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.given.When(c.command).ThenRejected(c.code) })
	}
}

func TestAnExecutionHasALimitOfNodes(t *testing.T) {
	t.Parallel()
	s := execution.State{Status: execution.StatusRunning, WorkflowID: "w", NodesExecuted: execution.NodesRecordedMax}
	decision, err := execution.Decider.Decide(s, decider.Message{Data: execution.RecordNode{Node: "n", Outcome: execution.OutcomeFailed}})
	if err != nil || decision.Rejection() == nil || decision.Rejection().Code != rule.CodeLimit {
		t.Errorf("got %v, %v, want rejected(limit)", decision, err)
	}
}

func TestACommandWithoutARuleIsAnError(t *testing.T) {
	t.Parallel()
	type other struct{}
	_, err := execution.Decider.Decide(execution.State{Status: execution.StatusRunning}, decider.Message{Type: "execution.Other", Data: other{}})
	if err == nil || !strings.Contains(err.Error(), "execution.Other") {
		t.Errorf("got %v, want an error that names the command", err)
	}
}

// TestAnyCommandsKeepTheRules sends random commands at random times.
func TestAnyCommandsKeepTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := begin(rt)
		commands := rapid.SampledFrom([]any{
			execution.StartExecution{WorkflowID: "w"},
			execution.RecordNode{Node: "n", Outcome: execution.OutcomeSucceeded},
			execution.RecordNode{Node: "n", Outcome: execution.OutcomeFailed},
			execution.RecordNode{Node: "n", Outcome: execution.OutcomeSucceeded},
			execution.CompleteExecution{}, execution.FailExecution{}, execution.CancelExecution{},
		})
		ended := false
		var last time.Time
		for range rapid.IntRange(1, 30).Draw(rt, "length") {
			at := decidertest.Epoch.Add(time.Duration(rapid.IntRange(0, 50).Draw(rt, "second")) * time.Second)
			outcome := s.When(commands.Draw(rt, "command"), decidertest.At(at))
			decision, err := outcome.Decision()
			if err != nil {
				rt.Fatalf("got the error %v", err)
			}
			s = outcome.Next()
			if len(decision.Events()) == 0 {
				continue
			}
			if ended || at.Before(last) {
				rt.Fatalf("accepted %+v at %s after the end (%v) or before the last time %s", decision.Events(), at, ended, last)
			}
			last = at
			ended = s.State().Status != execution.StatusRunning
			if st := s.State(); st.NodesFailed > st.NodesExecuted || st.LastAt != at || st.StartedAt.After(st.LastAt) {
				rt.Fatalf("state %+v does not add up at %s", st, at)
			}
		}
	})
}
