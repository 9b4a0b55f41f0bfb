package workflow_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/decider/decidertest"
	"github.com/foldstream/foldstream/schemas/avro"
)

// A few messages that most tests speak of.
var (
	created = workflow.WorkflowCreated{Name: "Invoices", Tags: []string{"finance"}}
	nodeA   = workflow.NodeAdded{NodeID: "a", Kind: "task", Name: "Enter"}
	nodeB   = workflow.NodeAdded{NodeID: "b", Kind: "task", Name: "Check"}
	nodeC   = workflow.NodeAdded{NodeID: "c", Kind: "task", Name: "Pay"}
	edgeAB  = workflow.NodesConnected{From: "a", To: "b"}
	edgeBC  = workflow.NodesConnected{From: "b", To: "c"}
	edgeCC  = workflow.NodesConnected{From: "c", To: "c"}
)

func begin(t decidertest.TB) decidertest.Scenario[workflow.State] {
	return decidertest.New(t, workflow.Decider, decidertest.Schemas(avro.Files))
}

func ptr[T any](v T) *T { return &v }

func TestAWorkflowIsBuilt(t *testing.T) {
	t.Parallel()
	config := map[string]string{"queue": "north", "": ""}
	s := begin(t).
		When(workflow.CreateWorkflow{Name: "Invoices", Tags: []string{"finance", "éta"}}).
		ThenEvents(workflow.WorkflowCreated{Name: "Invoices", Tags: []string{"finance", "éta"}})
	s.When(workflow.AddNode{NodeID: "a", Kind: "task", Name: "Enter", Config: config}).ThenRejected(rule.CodeValue)
	delete(config, "")
	s = s.When(workflow.AddNode{NodeID: "a", Kind: "task", Name: "Enter", Config: config}).
		ThenEvents(workflow.NodeAdded{NodeID: "a", Kind: "task", Name: "Enter", Config: config}).
		When(workflow.AddNode(nodeB)).ThenEvents(nodeB).
		When(workflow.ConnectNodes(edgeAB)).ThenEvents(edgeAB)
	s.ThenState(workflow.State{
		Status: workflow.StatusActive, Name: "Invoices", Tags: []string{"finance", "éta"},
		Nodes: []string{"a", "b"}, Connections: []workflow.Connection{{From: "a", To: "b"}},
	})
}

func TestUpdateChangesWhatIsGiven(t *testing.T) {
	t.Parallel()
	s := begin(t).Given(created)
	cases := []struct {
		name    string
		command workflow.UpdateWorkflow
		want    workflow.WorkflowUpdated
	}{
		{"the name", workflow.UpdateWorkflow{Name: ptr("Bills")}, workflow.WorkflowUpdated{Name: "Bills", Tags: []string{"finance"}}},
		{"the tags", workflow.UpdateWorkflow{Tags: &[]string{"a", "b"}}, workflow.WorkflowUpdated{Name: "Invoices", Tags: []string{"a", "b"}}},
		{"the tags to none", workflow.UpdateWorkflow{Tags: &[]string{}}, workflow.WorkflowUpdated{Name: "Invoices"}},
		{"both", workflow.UpdateWorkflow{Name: ptr("Bills"), Tags: &[]string{"a"}}, workflow.WorkflowUpdated{Name: "Bills", Tags: []string{"a"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s.When(c.command).ThenEvents(c.want).
				ThenState(workflow.State{Status: workflow.StatusActive, Name: c.want.Name, Tags: c.want.Tags}).
				When(c.command).ThenNothing()
		})
	}
}

func TestRemovingANodeRemovesItsConnectionsFirst(t *testing.T) {
	t.Parallel()
	s := begin(t).Given(created, nodeA, nodeB, nodeC, edgeAB, edgeBC, edgeCC)
	s.When(workflow.RemoveNode{NodeID: "c"}).
		ThenEvents(workflow.NodesDisconnected{From: "b", To: "c"}, workflow.NodesDisconnected{From: "c", To: "c"}, workflow.NodeRemoved{NodeID: "c"}).
		ThenState(workflow.State{
			Status: workflow.StatusActive, Name: "Invoices", Tags: []string{"finance"},
			Nodes: []string{"a", "b"}, Connections: []workflow.Connection{{From: "a", To: "b"}},
		}).
		When(workflow.AddNode(nodeC)).ThenEvents(nodeC)
}

func TestConnectionsHaveADirection(t *testing.T) {
	t.Parallel()
	s := begin(t).Given(created, nodeA, nodeB, edgeAB)
	s.When(workflow.ConnectNodes{From: "b", To: "a"}).ThenEvents(workflow.NodesConnected{From: "b", To: "a"})
	s.When(workflow.DisconnectNodes{From: "b", To: "a"}).ThenRejected(workflow.CodeEdgeMissing)
	s.When(workflow.DisconnectNodes(edgeAB)).ThenEvents(workflow.NodesDisconnected(edgeAB)).
		When(workflow.ConnectNodes(edgeAB)).ThenEvents(edgeAB)
}

func TestRejections(t *testing.T) {
	t.Parallel()
	empty := begin(t)
	active := empty.Given(created, nodeA, nodeB, edgeAB)
	long := func(n int) string { return strings.Repeat("x", n+1) }
	many := func(n int) []string {
		var tags []string
		for i := range n + 1 {
			tags = append(tags, fmt.Sprint(i))
		}
		return tags
	}
	settings := map[string]string{}
	for i := range rule.MapEntriesMax + 1 {
		settings[fmt.Sprint(i)] = ""
	}
	cases := []struct {
		name    string
		given   decidertest.Scenario[workflow.State]
		command any
		code    string
	}{
		{"create twice", active, workflow.CreateWorkflow{Name: "Invoices", Tags: []string{"finance"}}, rule.CodeExists},
		{"create without a name", empty, workflow.CreateWorkflow{}, rule.CodeValue},
		{"create with a long name", empty, workflow.CreateWorkflow{Name: long(workflow.NameBytesMax)}, rule.CodeLimit},
		{"create with many tags", empty, workflow.CreateWorkflow{Name: "n", Tags: many(workflow.TagsMax)}, rule.CodeLimit},
		{"create with a tag twice", empty, workflow.CreateWorkflow{Name: "n", Tags: []string{"a", "b", "a"}}, rule.CodeValue},
		{"create with an empty tag", empty, workflow.CreateWorkflow{Name: "n", Tags: []string{""}}, rule.CodeValue},
		{"create with a long tag", empty, workflow.CreateWorkflow{Name: "n", Tags: []string{long(workflow.TagBytesMax)}}, rule.CodeLimit},
		{"update before creation", empty, workflow.UpdateWorkflow{Name: ptr("n")}, rule.CodeNotFound},
		{"update to no name", active, workflow.UpdateWorkflow{Name: ptr("")}, rule.CodeValue},
		{"update to a tag twice", active, workflow.UpdateWorkflow{Tags: &[]string{"a", "a"}}, rule.CodeValue},
		{"add before creation", empty, workflow.AddNode(nodeA), rule.CodeNotFound},
		{"add a node twice", active, workflow.AddNode{NodeID: "a", Kind: "other", Name: "Other"}, workflow.CodeNodeExists},
		{"add a node without an id", active, workflow.AddNode{Kind: "task", Name: "n"}, rule.CodeValue},
		{"add a node without a kind", active, workflow.AddNode{NodeID: "n", Name: "n"}, rule.CodeValue},
		{"add a node without a name", active, workflow.AddNode{NodeID: "n", Kind: "task"}, rule.CodeValue},
		{"add a node with a long id", active, workflow.AddNode{NodeID: long(workflow.NodeIDBytesMax), Kind: "task", Name: "n"}, rule.CodeLimit},
		{"add a node with a long kind", active, workflow.AddNode{NodeID: "n", Kind: long(workflow.KindBytesMax), Name: "n"}, rule.CodeLimit},
		{"add a node with many settings", active, workflow.AddNode{NodeID: "n", Kind: "task", Name: "n", Config: settings}, rule.CodeLimit},
		{"add a node with a long setting", active, workflow.AddNode{NodeID: "n", Kind: "task", Name: "n", Config: map[string]string{"k": long(rule.MapValueBytesMax)}}, rule.CodeLimit},
		{"remove a missing node", active, workflow.RemoveNode{NodeID: "z"}, workflow.CodeNodeMissing},
		{"connect from a missing node", active, workflow.ConnectNodes{From: "z", To: "a"}, workflow.CodeNodeMissing},
		{"connect to a missing node", active, workflow.ConnectNodes{From: "a", To: "z"}, workflow.CodeNodeMissing},
		{"connect twice", active, workflow.ConnectNodes(edgeAB), workflow.CodeEdgeExists},
		{"disconnect what is not connected", active, workflow.DisconnectNodes{From: "a", To: "z"}, workflow.CodeEdgeMissing},
		{"archive before creation", empty, workflow.ArchiveWorkflow{}, rule.CodeNotFound},
		{"archive with a long reason", active, workflow.ArchiveWorkflow{Reason: long(rule.ReasonBytesMax)}, rule.CodeLimit},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.given.When(c.command).ThenRejected(c.code) })
	}
}

func TestTextThatIsNoUTF8IsRefused(t *testing.T) {
	t.Parallel()
	s := decidertest.New(t, workflow.Decider) // without schemas: the codec may refuse it even earlier
	s.When(workflow.CreateWorkflow{Name: "a\xff"}).ThenRejected(rule.CodeValue)
	s.Given(created).When(workflow.AddNode{NodeID: "a\xff", Kind: "task", Name: "n"}).ThenRejected(rule.CodeValue)
}

func TestAnArchivedWorkflowTakesNothing(t *testing.T) {
	t.Parallel()
	s := begin(t).Given(created, nodeA, nodeB, edgeAB).
		When(workflow.ArchiveWorkflow{Reason: "old"}).ThenEvents(workflow.WorkflowArchived{Reason: "old"})
	commands := []any{
		workflow.UpdateWorkflow{Name: ptr("n")}, workflow.AddNode(nodeC), workflow.RemoveNode{NodeID: "a"},
		workflow.ConnectNodes{From: "b", To: "a"}, workflow.DisconnectNodes(edgeAB), workflow.ArchiveWorkflow{},
	}
	for _, command := range commands {
		s.When(command).ThenRejected(workflow.CodeArchived)
	}
	s.When(workflow.CreateWorkflow{Name: "n"}).ThenRejected(rule.CodeExists)
}

func TestTheGraphHasLimits(t *testing.T) {
	t.Parallel()
	full := workflow.State{Status: workflow.StatusActive, Name: "n"}
	for i := range workflow.NodesMax {
		full.Nodes = append(full.Nodes, fmt.Sprint(i))
	}
	for i := range workflow.ConnectionsMax {
		full.Connections = append(full.Connections, workflow.Connection{From: fmt.Sprint(i / 30), To: fmt.Sprint(i % 30)})
	}
	for _, command := range []any{workflow.AddNode(nodeA), workflow.ConnectNodes{From: "400", To: "1"}} {
		decision, err := workflow.Decider.Decide(full, decider.Message{Data: command})
		if err != nil || decision.Rejection() == nil || decision.Rejection().Code != rule.CodeLimit {
			t.Errorf("%T: got %v, %v, want rejected(limit)", command, decision, err)
		}
	}
}

func TestACommandWithoutARuleIsAnError(t *testing.T) {
	t.Parallel()
	type other struct{}
	_, err := workflow.Decider.Decide(workflow.State{Status: workflow.StatusActive}, decider.Message{Type: "workflow.Other", Data: other{}})
	if err == nil || !strings.Contains(err.Error(), "workflow.Other") {
		t.Errorf("got %v, want an error that names the command", err)
	}
}

// TestAnyCommandsKeepTheGraphWhole sends random commands and checks the invariants after each.
func TestAnyCommandsKeepTheGraphWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := begin(rt)
		id := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		commands := rapid.OneOf(
			rapid.Just[any](workflow.CreateWorkflow{Name: "n"}),
			rapid.Map(id, func(id string) any { return workflow.AddNode{NodeID: id, Kind: "task", Name: id} }),
			rapid.Map(id, func(id string) any { return workflow.RemoveNode{NodeID: id} }),
			rapid.Custom(func(rt *rapid.T) any { return workflow.ConnectNodes{From: id.Draw(rt, "from"), To: id.Draw(rt, "to")} }),
			rapid.Custom(func(rt *rapid.T) any {
				return workflow.DisconnectNodes{From: id.Draw(rt, "from"), To: id.Draw(rt, "to")}
			}),
			rapid.Map(rapid.String(), func(name string) any { return workflow.UpdateWorkflow{Name: &name} }),
		)
		for range rapid.IntRange(1, 40).Draw(rt, "length") {
			before := s.State()
			outcome := s.When(commands.Draw(rt, "command"))
			s = outcome.Next()
			if err := whole(s.State()); err != nil {
				decision, _ := outcome.Decision()
				rt.Fatalf("%v\nbefore %+v\nevents %+v\nafter %+v", err, before, decision.Events(), s.State())
			}
		}
	})
}

func whole(s workflow.State) error {
	var faults []error
	for i, id := range s.Nodes {
		if slices.Contains(s.Nodes[:i], id) {
			faults = append(faults, fmt.Errorf("node %s stands twice", id))
		}
	}
	for i, c := range s.Connections {
		if slices.Contains(s.Connections[:i], c) {
			faults = append(faults, fmt.Errorf("connection %v stands twice", c))
		}
		if !slices.Contains(s.Nodes, c.From) || !slices.Contains(s.Nodes, c.To) {
			faults = append(faults, fmt.Errorf("connection %v has a missing node", c))
		}
	}
	if s.Status == workflow.StatusNone && len(s.Nodes) > 0 {
		faults = append(faults, errors.New("nodes without a workflow"))
	}
	return errors.Join(faults...)
}
