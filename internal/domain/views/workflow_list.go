package views

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Workflow is a row of workflow_list: one workflow as it is now.
type Workflow struct {
	Name        string          `db:"name"`
	Status      workflow.Status `db:"status"`
	Tags        []string        `db:"tags"`
	Nodes       []Node          `db:"nodes,jsonb"`       // ordered by id
	Connections []Connection    `db:"connections,jsonb"` // ordered by from, to
	CreatedAt   time.Time       `db:"created_at"`
	UpdatedAt   time.Time       `db:"updated_at"`
}

// Node is one element of workflow_list.nodes.
type Node struct {
	ID     string            `json:"id"`
	Kind   string            `json:"kind"`
	Name   string            `json:"name"`
	Config map[string]string `json:"config"`
}

// Connection is one element of workflow_list.connections.
type Connection struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// WorkflowList has a row per workflow.
func WorkflowList() projection.View {
	return projection.Entity(projection.EntitySpec[Workflow]{
		Name: "workflow_list", Version: 1, Key: "workflow_id",
		On: []codec.TypeDef{
			projection.On[workflow.WorkflowCreated]("workflow.WorkflowCreated", 1),
			projection.On[workflow.WorkflowUpdated]("workflow.WorkflowUpdated", 1),
			projection.On[workflow.NodeAdded]("workflow.NodeAdded", 1),
			projection.On[workflow.NodeRemoved]("workflow.NodeRemoved", 1),
			projection.On[workflow.NodesConnected]("workflow.NodesConnected", 1),
			projection.On[workflow.NodesDisconnected]("workflow.NodesDisconnected", 1),
			projection.On[workflow.WorkflowArchived]("workflow.WorkflowArchived", 1),
		},
		Fold: foldWorkflow,
	})
}

func foldWorkflow(w Workflow, exists bool, e projection.Event) (Workflow, projection.Change, error) {
	if created, ok := e.Data.(workflow.WorkflowCreated); ok {
		w = Workflow{Name: created.Name, Tags: created.Tags, Status: workflow.StatusActive, CreatedAt: e.Time, UpdatedAt: e.Time}
		return w, projection.Set, nil
	}
	if !exists {
		return w, projection.Keep, fmt.Errorf("%s on a workflow that was not created", e.Type)
	}
	w.UpdatedAt = e.Time
	switch d := e.Data.(type) {
	case workflow.WorkflowUpdated:
		w.Name, w.Tags = d.Name, d.Tags
	case workflow.NodeAdded:
		w.Nodes = withNode(w.Nodes, Node{ID: d.NodeID, Kind: d.Kind, Name: d.Name, Config: d.Config})
	case workflow.NodeRemoved:
		w.Nodes = slices.DeleteFunc(slices.Clone(w.Nodes), func(n Node) bool { return n.ID == d.NodeID })
	case workflow.NodesConnected:
		w.Connections = withConnection(w.Connections, Connection(d))
	case workflow.NodesDisconnected:
		w.Connections = slices.DeleteFunc(slices.Clone(w.Connections), func(c Connection) bool { return c == Connection(d) })
	case workflow.WorkflowArchived:
		w.Status = workflow.StatusArchived
	default:
		return w, projection.Keep, unexpected(e)
	}
	return w, projection.Set, nil
}

// withNode inserts by id; a node of the same id is replaced.
func withNode(nodes []Node, n Node) []Node {
	if n.Config == nil {
		n.Config = map[string]string{}
	}
	at, found := slices.BinarySearchFunc(nodes, n, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	if found {
		nodes = slices.Clone(nodes)
		nodes[at] = n
		return nodes
	}
	return slices.Insert(slices.Clone(nodes), at, n)
}

func withConnection(connections []Connection, c Connection) []Connection {
	at, found := slices.BinarySearchFunc(connections, c, func(a, b Connection) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	if found {
		return connections
	}
	return slices.Insert(slices.Clone(connections), at, c)
}

// unexpected is the error for a registered type that a fold has no case for.
func unexpected(e projection.Event) error {
	return fmt.Errorf("no case for event %s (%T)", e.Type, e.Data)
}
