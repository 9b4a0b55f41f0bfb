// Package workflow is the write side of one workflow: a named graph of nodes.
//
// The rules: a node's id is unique in its workflow; a connection joins nodes that are there, and
// stands once; removing a node removes its connections first, each by an event of its own, so
// that a view need not know the graph; nothing is changed after the workflow is archived.
package workflow

import (
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/internal/domain/rule"
	"github.com/foldstream/foldstream/pkg/decider"
)

// Codes of rejections, beside those of package rule.
const (
	CodeArchived    = "archived"     // the workflow is archived
	CodeNodeExists  = "node-exists"  // the node id is taken
	CodeNodeMissing = "node-missing" // a node that the command names is not there
	CodeEdgeExists  = "edge-exists"  // the connection is there already
	CodeEdgeMissing = "edge-missing" // the connection is not there
)

// Limits of a workflow. Bytes are of UTF-8. The connections bound the events of one RemoveNode,
// and both bound the state: about 300 KiB.
const (
	NameBytesMax   = 255
	TagsMax        = 50
	TagBytesMax    = 64
	NodesMax       = 500
	NodeIDBytesMax = 128
	KindBytesMax   = 64
	ConnectionsMax = 900
)

// Decider decides commands on one workflow.
var Decider = decider.Spec[State]{
	Category:     Category,
	StateVersion: 1,
	Types:        Types,
	Initial:      func() State { return State{Status: StatusNone} },
	Decide:       decide,
	Evolve:       evolve,
}

func decide(s State, m decider.Message) (decider.Decision, error) {
	if c, ok := m.Data.(CreateWorkflow); ok {
		return create(s, c)
	}
	switch s.Status {
	case StatusNone:
		return decider.Reject(rule.CodeNotFound, "there is no such workflow: create it first")
	case StatusArchived:
		return decider.Reject(CodeArchived, "the workflow is archived and takes no changes")
	}
	switch c := m.Data.(type) {
	case UpdateWorkflow:
		return update(s, c)
	case AddNode:
		return addNode(s, c)
	case RemoveNode:
		return removeNode(s, c)
	case ConnectNodes:
		return connect(s, Connection(c))
	case DisconnectNodes:
		return disconnect(s, Connection(c))
	case ArchiveWorkflow:
		return archive(c)
	default:
		return decider.Decision{}, fmt.Errorf("workflow: no rule for command %s (%T)", m.Type, m.Data)
	}
}

func create(s State, c CreateWorkflow) (decider.Decision, error) {
	if s.Status != StatusNone {
		return decider.Reject(rule.CodeExists, "the workflow exists already")
	}
	if b := rule.First(checkName(c.Name), checkTags(c.Tags)); b != nil {
		return b.Reject()
	}
	return decider.Emit(WorkflowCreated(c))
}

// update accepts a command that changes nothing, and leaves no event for it.
func update(s State, c UpdateWorkflow) (decider.Decision, error) {
	to := WorkflowUpdated{Name: s.Name, Tags: s.Tags}
	if c.Name != nil {
		to.Name = *c.Name
	}
	if c.Tags != nil {
		to.Tags = *c.Tags
	}
	if b := rule.First(checkName(to.Name), checkTags(to.Tags)); b != nil {
		return b.Reject()
	}
	if to.Name == s.Name && slices.Equal(to.Tags, s.Tags) {
		return decider.Emit()
	}
	return decider.Emit(to)
}

func addNode(s State, c AddNode) (decider.Decision, error) {
	b := rule.First(
		rule.Name("nodeId", c.NodeID, NodeIDBytesMax),
		rule.Name("kind", c.Kind, KindBytesMax),
		rule.Name("name", c.Name, NameBytesMax),
		rule.Map("config", c.Config),
	)
	switch {
	case b != nil:
		return b.Reject()
	case s.hasNode(c.NodeID):
		return decider.Rejectf(CodeNodeExists, "node %q exists already", c.NodeID)
	case len(s.Nodes) >= NodesMax:
		return decider.Rejectf(rule.CodeLimit, "the workflow has %d nodes, the most that are allowed", NodesMax)
	}
	return decider.Emit(NodeAdded(c))
}

func removeNode(s State, c RemoveNode) (decider.Decision, error) {
	if !s.hasNode(c.NodeID) {
		return missing(c.NodeID)
	}
	var events []any
	for _, edge := range s.Connections {
		if edge.From == c.NodeID || edge.To == c.NodeID {
			events = append(events, NodesDisconnected(edge))
		}
	}
	return decider.Emit(append(events, NodeRemoved(c))...)
}

func connect(s State, edge Connection) (decider.Decision, error) {
	switch {
	case !s.hasNode(edge.From):
		return missing(edge.From)
	case !s.hasNode(edge.To):
		return missing(edge.To)
	case s.hasConnection(edge):
		return decider.Rejectf(CodeEdgeExists, "%q and %q are connected already", edge.From, edge.To)
	case len(s.Connections) >= ConnectionsMax:
		return decider.Rejectf(rule.CodeLimit, "the workflow has %d connections, the most that are allowed", ConnectionsMax)
	}
	return decider.Emit(NodesConnected(edge))
}

func disconnect(s State, edge Connection) (decider.Decision, error) {
	if !s.hasConnection(edge) {
		return decider.Rejectf(CodeEdgeMissing, "%.40q and %.40q are not connected", edge.From, edge.To)
	}
	return decider.Emit(NodesDisconnected(edge))
}

func archive(c ArchiveWorkflow) (decider.Decision, error) {
	if b := rule.Text("reason", c.Reason, rule.ReasonBytesMax); b != nil {
		return b.Reject()
	}
	return decider.Emit(WorkflowArchived(c))
}

func missing(nodeID string) (decider.Decision, error) {
	return decider.Rejectf(CodeNodeMissing, "there is no node %.40q in the workflow", nodeID)
}

func checkName(name string) *rule.Broken { return rule.Name("name", name, NameBytesMax) }

func checkTags(tags []string) *rule.Broken { return rule.Set("tags", tags, TagsMax, TagBytesMax) }

// evolve never writes into a slice of the state that it was given.
func evolve(s State, m decider.Message) State {
	switch e := m.Data.(type) {
	case WorkflowCreated:
		s.Status, s.Name, s.Tags = StatusActive, e.Name, e.Tags
	case WorkflowUpdated:
		s.Name, s.Tags = e.Name, e.Tags
	case NodeAdded:
		s.Nodes = append(slices.Clip(s.Nodes), e.NodeID)
	case NodeRemoved:
		s.Nodes = without(s.Nodes, e.NodeID)
	case NodesConnected:
		s.Connections = append(slices.Clip(s.Connections), Connection(e))
	case NodesDisconnected:
		s.Connections = without(s.Connections, Connection(e))
	case WorkflowArchived:
		s.Status = StatusArchived
	}
	return s
}

func without[T comparable](list []T, item T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(other T) bool { return other == item })
}
