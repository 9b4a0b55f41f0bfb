package workflow

import (
	"slices"

	"github.com/foldstream/foldstream/pkg/decider"
)

// Category is the category of these streams.
const Category = "workflow"

// The commands.
type (
	// CreateWorkflow creates a workflow without nodes.
	CreateWorkflow struct {
		Name string   `avro:"name"`
		Tags []string `avro:"tags"`
	}
	// UpdateWorkflow changes name or tags; what is nil stays.
	UpdateWorkflow struct {
		Name *string   `avro:"name"`
		Tags *[]string `avro:"tags"`
	}
	// AddNode adds a node.
	AddNode struct {
		NodeID string            `avro:"nodeId"`
		Kind   string            `avro:"kind"`
		Name   string            `avro:"name"`
		Config map[string]string `avro:"config"`
	}
	// RemoveNode removes a node and every connection from or to it.
	RemoveNode struct {
		NodeID string `avro:"nodeId"`
	}
	// ConnectNodes connects two nodes that are there.
	ConnectNodes struct {
		From string `avro:"from"`
		To   string `avro:"to"`
	}
	// DisconnectNodes removes a connection.
	DisconnectNodes struct {
		From string `avro:"from"`
		To   string `avro:"to"`
	}
	// ArchiveWorkflow ends a workflow; nothing is changed after it.
	ArchiveWorkflow struct {
		Reason string `avro:"reason"`
	}
)

// The events.
type (
	// WorkflowCreated begins a stream.
	WorkflowCreated struct {
		Name string   `avro:"name"`
		Tags []string `avro:"tags"`
	}
	// WorkflowUpdated gives name and tags as they are from now on.
	WorkflowUpdated struct {
		Name string   `avro:"name"`
		Tags []string `avro:"tags"`
	}
	// NodeAdded adds a node.
	NodeAdded struct {
		NodeID string            `avro:"nodeId"`
		Kind   string            `avro:"kind"`
		Name   string            `avro:"name"`
		Config map[string]string `avro:"config"`
	}
	// NodeRemoved removes a node whose connections are gone already.
	NodeRemoved struct {
		NodeID string `avro:"nodeId"`
	}
	// NodesConnected adds a connection.
	NodesConnected struct {
		From string `avro:"from"`
		To   string `avro:"to"`
	}
	// NodesDisconnected removes a connection.
	NodesDisconnected struct {
		From string `avro:"from"`
		To   string `avro:"to"`
	}
	// WorkflowArchived ends a stream.
	WorkflowArchived struct {
		Reason string `avro:"reason"`
	}
)

// Types registers every command and event.
var Types = decider.Types{
	decider.Command[CreateWorkflow]("workflow.CreateWorkflow", 1),
	decider.Command[UpdateWorkflow]("workflow.UpdateWorkflow", 1),
	decider.Command[AddNode]("workflow.AddNode", 1),
	decider.Command[RemoveNode]("workflow.RemoveNode", 1),
	decider.Command[ConnectNodes]("workflow.ConnectNodes", 1),
	decider.Command[DisconnectNodes]("workflow.DisconnectNodes", 1),
	decider.Command[ArchiveWorkflow]("workflow.ArchiveWorkflow", 1),
	decider.Event[WorkflowCreated]("workflow.WorkflowCreated", 1),
	decider.Event[WorkflowUpdated]("workflow.WorkflowUpdated", 1),
	decider.Event[NodeAdded]("workflow.NodeAdded", 1),
	decider.Event[NodeRemoved]("workflow.NodeRemoved", 1),
	decider.Event[NodesConnected]("workflow.NodesConnected", 1),
	decider.Event[NodesDisconnected]("workflow.NodesDisconnected", 1),
	decider.Event[WorkflowArchived]("workflow.WorkflowArchived", 1),
}

// Status is where a workflow is in its life.
type Status string

// The statuses.
const (
	StatusNone     Status = "none" // not created
	StatusActive   Status = "active"
	StatusArchived Status = "archived"
)

// Connection is one directed connection between two nodes, which may be the same one.
type Connection struct {
	From string `avro:"from"`
	To   string `avro:"to"`
}

// State is what the decider needs to know of one workflow: what names are taken, not what the
// nodes are configured with.
type State struct {
	Status      Status       `avro:"status"`
	Name        string       `avro:"name"`
	Tags        []string     `avro:"tags"`
	Nodes       []string     `avro:"nodes"`
	Connections []Connection `avro:"connections"`
}

func (s State) hasNode(id string) bool { return slices.Contains(s.Nodes, id) }

func (s State) hasConnection(c Connection) bool { return slices.Contains(s.Connections, c) }
