package execution

import (
	"time"

	"github.com/foldstream/foldstream/pkg/decider"
)

// Category is the category of these streams.
const Category = "execution"

// Outcome is how one node ended.
type Outcome string

// The outcomes. OutcomeUnknown is what a reader makes of a symbol that it does not know.
const (
	OutcomeUnknown   Outcome = "unknown"
	OutcomeSucceeded Outcome = "succeeded"
	OutcomeFailed    Outcome = "failed"
)

// The commands. The time of what they tell is the message's business time.
type (
	// StartExecution starts an execution of a workflow.
	StartExecution struct {
		WorkflowID string            `avro:"workflowId"`
		Input      map[string]string `avro:"input"`
	}
	// RecordNode records that a node ran. A node may run many times.
	RecordNode struct {
		Node       string            `avro:"node"`
		Outcome    Outcome           `avro:"outcome"`
		DurationMs int64             `avro:"durationMs"`
		Attributes map[string]string `avro:"attributes"`
	}
	// CompleteExecution ends an execution with success.
	CompleteExecution struct {
		Output map[string]string `avro:"output"`
	}
	// FailExecution ends an execution as failed.
	FailExecution struct {
		Reason string `avro:"reason"`
	}
	// CancelExecution ends an execution before its own end.
	CancelExecution struct {
		Reason string `avro:"reason"`
	}
)

// The events. Each carries the workflow's id, so that a view may count by workflow without
// knowing the stream's beginning.
type (
	// ExecutionStarted begins a stream.
	ExecutionStarted struct {
		WorkflowID string            `avro:"workflowId"`
		Input      map[string]string `avro:"input"`
	}
	// NodeRecorded tells that a node ran.
	NodeRecorded struct {
		WorkflowID string            `avro:"workflowId"`
		Node       string            `avro:"node"`
		Outcome    Outcome           `avro:"outcome"`
		DurationMs int64             `avro:"durationMs"`
		Attributes map[string]string `avro:"attributes"`
	}
	// ExecutionCompleted ends a stream with success.
	ExecutionCompleted struct {
		WorkflowID    string            `avro:"workflowId"`
		StartedAt     time.Time         `avro:"startedAt"`
		DurationMs    int64             `avro:"durationMs"`
		NodesExecuted int64             `avro:"nodesExecuted"`
		NodesFailed   int64             `avro:"nodesFailed"`
		Output        map[string]string `avro:"output"`
	}
	// ExecutionFailed ends a stream as failed.
	ExecutionFailed struct {
		WorkflowID    string    `avro:"workflowId"`
		StartedAt     time.Time `avro:"startedAt"`
		DurationMs    int64     `avro:"durationMs"`
		NodesExecuted int64     `avro:"nodesExecuted"`
		NodesFailed   int64     `avro:"nodesFailed"`
		Reason        string    `avro:"reason"`
	}
	// ExecutionCancelled ends a stream before its own end.
	ExecutionCancelled struct {
		WorkflowID    string    `avro:"workflowId"`
		StartedAt     time.Time `avro:"startedAt"`
		DurationMs    int64     `avro:"durationMs"`
		NodesExecuted int64     `avro:"nodesExecuted"`
		NodesFailed   int64     `avro:"nodesFailed"`
		Reason        string    `avro:"reason"`
	}
)

// Types registers every command and event.
var Types = decider.Types{
	decider.Command[StartExecution]("execution.StartExecution", 1),
	decider.Command[RecordNode]("execution.RecordNode", 1),
	decider.Command[CompleteExecution]("execution.CompleteExecution", 1),
	decider.Command[FailExecution]("execution.FailExecution", 1),
	decider.Command[CancelExecution]("execution.CancelExecution", 1),
	decider.Event[ExecutionStarted]("execution.ExecutionStarted", 1),
	decider.Event[NodeRecorded]("execution.NodeRecorded", 1),
	decider.Event[ExecutionCompleted]("execution.ExecutionCompleted", 1),
	decider.Event[ExecutionFailed]("execution.ExecutionFailed", 1),
	decider.Event[ExecutionCancelled]("execution.ExecutionCancelled", 1),
}

// Status is where an execution is in its life.
type Status string

// The statuses.
const (
	StatusNone      Status = "none" // not started
	StatusRunning   Status = "running"
	StatusCompleted Status = "completed"
	StatusFailed    Status = "failed"
	StatusCancelled Status = "cancelled"
)

// State is what the decider needs to know of one execution. It does not grow.
type State struct {
	Status        Status    `avro:"status"`
	WorkflowID    string    `avro:"workflowId"`
	StartedAt     time.Time `avro:"startedAt"`
	LastAt        time.Time `avro:"lastAt"`
	NodesExecuted int64     `avro:"nodesExecuted"`
	NodesFailed   int64     `avro:"nodesFailed"`
}
