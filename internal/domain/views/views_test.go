package views_test

import (
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	. "github.com/foldstream/foldstream/pkg/projection/projectiontest"
)

var t0 = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

func at(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }

func TestAllViewsAreValidAndNamed(t *testing.T) {
	want := map[string][]string{
		"workflow_list":     {"workflow_id", "name", "status", "tags", "nodes", "connections", "created_at", "updated_at", "version"},
		"execution_history": {"execution_id", "workflow_id", "status", "started_at", "ended_at", "duration_ms", "nodes_executed", "nodes_failed", "version"},
		"node_metrics":      {"workflow_id", "node", "executions", "failures", "total_ms", "first_at", "last_at"},
		"metrics_hourly":    {"hour", "started", "completed", "failed", "cancelled", "nodes"},
	}
	for _, v := range views.All() {
		if err := v.Validate(); err != nil {
			t.Errorf("view %s: %v", v.Name, err)
		}
		columns := v.Layout()
		if len(columns) != len(want[v.Name]) {
			t.Errorf("view %s: got %d columns, want %v", v.Name, len(columns), want[v.Name])
			continue
		}
		for i, c := range columns {
			if c.Name != want[v.Name][i] {
				t.Errorf("view %s, column %d: got %s, want %s", v.Name, i, c.Name, want[v.Name][i])
			}
		}
		delete(want, v.Name)
	}
	if len(want) > 0 {
		t.Errorf("views missing: %v", want)
	}
}

func TestWorkflowListFollowsTheGraph(t *testing.T) {
	Given(t, views.WorkflowList(),
		Of("workflow.WorkflowCreated", "w1", at(0), workflow.WorkflowCreated{Name: "Bill", Tags: []string{"b", "a"}}),
		Of("workflow.NodeAdded", "w1", at(1), workflow.NodeAdded{NodeID: "z", Kind: "task", Name: "Last"}),
		Of("workflow.NodeAdded", "w1", at(2), workflow.NodeAdded{NodeID: "a", Kind: "task", Name: "First", Config: map[string]string{"y": "2", "x": "1"}}),
		Of("workflow.NodesConnected", "w1", at(3), workflow.NodesConnected{From: "z", To: "a"}),
		Of("workflow.NodesConnected", "w1", at(4), workflow.NodesConnected{From: "a", To: "z"}),
		Of("workflow.WorkflowUpdated", "w1", at(5), workflow.WorkflowUpdated{Name: "Bills", Tags: nil}),
	).Then(Row{
		"workflow_id": "w1", "name": "Bills", "status": "active", "tags": []string{},
		"nodes": `[{"id":"a","kind":"task","name":"First","config":{"x":"1","y":"2"}},
			{"id":"z","kind":"task","name":"Last","config":{}}]`,
		"connections": `[{"from":"a","to":"z"},{"from":"z","to":"a"}]`,
		"created_at":  at(0), "updated_at": at(5), "version": 6,
	})
}

func TestWorkflowListForgetsWhatIsRemovedAndArchives(t *testing.T) {
	Given(t, views.WorkflowList(),
		Of("workflow.WorkflowCreated", "w1", at(0), workflow.WorkflowCreated{Name: "Bill", Tags: []string{"x"}}),
		Of("workflow.NodeAdded", "w1", at(1), workflow.NodeAdded{NodeID: "a"}),
		Of("workflow.NodesConnected", "w1", at(2), workflow.NodesConnected{From: "a", To: "a"}),
		Of("workflow.NodesDisconnected", "w1", at(3), workflow.NodesDisconnected{From: "a", To: "a"}),
		Of("workflow.NodeRemoved", "w1", at(4), workflow.NodeRemoved{NodeID: "a"}),
		Of("workflow.WorkflowArchived", "w1", at(5), workflow.WorkflowArchived{Reason: "old"}),
	).Then(Row{
		"workflow_id": "w1", "status": "archived", "nodes": "[]", "connections": "[]", "tags": []string{"x"},
		"created_at": at(0), "updated_at": at(5), "version": 6,
	})
}

func TestWorkflowListAdvancesTheVersionOnTypesThatItIgnores(t *testing.T) {
	Given(t, views.WorkflowList(),
		Of("workflow.WorkflowCreated", "w1", at(0), workflow.WorkflowCreated{Name: "Bill"}),
		Of("workflow.Unheard", "w1", at(1), nil),
	).Then(Row{"workflow_id": "w1", "updated_at": at(0), "version": 2})
}

func TestExecutionHistory(t *testing.T) {
	started := Of("execution.ExecutionStarted", "x1", at(0), execution.ExecutionStarted{WorkflowID: "w1"})
	node := func(minutes int, outcome execution.Outcome) projection.Event {
		return Of("execution.NodeRecorded", "x1", at(minutes), execution.NodeRecorded{WorkflowID: "w1", Node: "a", Outcome: outcome})
	}
	running := Row{
		"execution_id": "x1", "workflow_id": "w1", "status": "running", "started_at": at(0), "ended_at": nil,
		"duration_ms": nil, "nodes_executed": 2, "nodes_failed": 1, "version": 3,
	}
	ended := func(status string) Row {
		return Row{
			"execution_id": "x1", "workflow_id": "w1", "status": status, "started_at": at(0), "ended_at": at(10),
			"duration_ms": 600_000, "nodes_executed": 2, "nodes_failed": 1, "version": 4,
		}
	}
	for name, c := range map[string]struct {
		last []projection.Event
		want Row
	}{
		"running":   {nil, running},
		"completed": {[]projection.Event{Of("execution.ExecutionCompleted", "x1", at(10), execution.ExecutionCompleted{})}, ended("completed")},
		"failed":    {[]projection.Event{Of("execution.ExecutionFailed", "x1", at(10), execution.ExecutionFailed{})}, ended("failed")},
		"cancelled": {[]projection.Event{Of("execution.ExecutionCancelled", "x1", at(10), execution.ExecutionCancelled{})}, ended("cancelled")},
	} {
		t.Run(name, func(t *testing.T) {
			events := []projection.Event{started, node(1, execution.OutcomeSucceeded), node(2, execution.OutcomeFailed)}
			Given(t, views.ExecutionHistory(), append(events, c.last...)...).Then(c.want)
		})
	}
}

func TestNodeMetricsCountPerWorkflowAndNode(t *testing.T) {
	ran := func(id, flow, node string, minutes int, outcome execution.Outcome, ms int64) projection.Event {
		return Of("execution.NodeRecorded", id, at(minutes), execution.NodeRecorded{WorkflowID: flow, Node: node, Outcome: outcome, DurationMs: ms})
	}
	Given(t, views.NodeMetrics(),
		ran("x1", "w1", "a", 5, execution.OutcomeSucceeded, 10),
		ran("x2", "w1", "a", 1, execution.OutcomeFailed, 20),
		ran("x1", "w1", "b", 6, execution.OutcomeSucceeded, 1),
		ran("x3", "w2", "a", 7, execution.OutcomeSucceeded, 2),
	).Then(
		Row{"workflow_id": "w1", "node": "a", "executions": 2, "failures": 1, "total_ms": 30, "first_at": at(1), "last_at": at(5)},
		Row{"workflow_id": "w1", "node": "b", "executions": 1, "failures": 0, "total_ms": 1, "first_at": at(6), "last_at": at(6)},
		Row{"workflow_id": "w2", "node": "a", "executions": 1, "failures": 0, "total_ms": 2, "first_at": at(7), "last_at": at(7)},
	)
}

func TestMetricsHourlyCountByTheHourInUTC(t *testing.T) {
	east := time.FixedZone("east", 5*3600+1800)
	Given(t, views.MetricsHourly(),
		Of("execution.ExecutionStarted", "x1", at(0), execution.ExecutionStarted{}),
		Of("execution.ExecutionStarted", "x2", at(29).In(east), execution.ExecutionStarted{}),
		Of("execution.NodeRecorded", "x1", at(30), execution.NodeRecorded{}),
		Of("execution.ExecutionCompleted", "x1", at(31), execution.ExecutionCompleted{}),
		Of("execution.ExecutionFailed", "x2", at(32), execution.ExecutionFailed{}),
		Of("execution.ExecutionStarted", "x3", at(33), execution.ExecutionStarted{}),
		Of("execution.ExecutionCancelled", "x3", at(34), execution.ExecutionCancelled{}),
	).Then(
		Row{"hour": t0.Truncate(time.Hour), "started": 2, "completed": 0, "failed": 0, "cancelled": 0, "nodes": 0},
		Row{"hour": t0.Truncate(time.Hour).Add(time.Hour), "started": 1, "completed": 1, "failed": 1, "cancelled": 1, "nodes": 1},
	)
}

func TestAnEventBeforeTheBeginningParksItsStreamOnly(t *testing.T) {
	Given(t, views.ExecutionHistory(),
		Of("execution.NodeRecorded", "bad", at(0), execution.NodeRecorded{}),
		Of("execution.ExecutionStarted", "good", at(0), execution.ExecutionStarted{}),
		Of("execution.ExecutionCompleted", "bad", at(1), execution.ExecutionCompleted{}),
	).ThenParked(event.StreamID{Category: "execution", ID: "bad"}, "was not started",
		Row{"execution_id": "good", "status": "running"})
}
