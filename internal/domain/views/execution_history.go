package views

import (
	"fmt"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Execution is a row of execution_history: one run of a workflow.
type Execution struct {
	WorkflowID    string           `db:"workflow_id"`
	Status        execution.Status `db:"status"`
	StartedAt     time.Time        `db:"started_at"`
	EndedAt       *time.Time       `db:"ended_at"`    // null while running
	DurationMs    *int64           `db:"duration_ms"` // null while running
	NodesExecuted int64            `db:"nodes_executed"`
	NodesFailed   int64            `db:"nodes_failed"`
}

// ExecutionHistory has a row per execution.
func ExecutionHistory() projection.View {
	return projection.Entity(projection.EntitySpec[Execution]{
		Name: "execution_history", Version: 1, Key: "execution_id",
		On: executionTypes(), Fold: foldExecution,
	})
}

func executionTypes() []codec.TypeDef {
	return []codec.TypeDef{
		projection.On[execution.ExecutionStarted]("execution.ExecutionStarted", 1),
		projection.On[execution.NodeRecorded]("execution.NodeRecorded", 1),
		projection.On[execution.ExecutionCompleted]("execution.ExecutionCompleted", 1),
		projection.On[execution.ExecutionFailed]("execution.ExecutionFailed", 1),
		projection.On[execution.ExecutionCancelled]("execution.ExecutionCancelled", 1),
	}
}

func foldExecution(x Execution, exists bool, e projection.Event) (Execution, projection.Change, error) {
	if started, ok := e.Data.(execution.ExecutionStarted); ok {
		return Execution{WorkflowID: started.WorkflowID, Status: execution.StatusRunning, StartedAt: e.Time}, projection.Set, nil
	}
	if !exists {
		return x, projection.Keep, fmt.Errorf("%s on an execution that was not started", e.Type)
	}
	switch d := e.Data.(type) {
	case execution.NodeRecorded:
		x.NodesExecuted++
		if d.Outcome == execution.OutcomeFailed {
			x.NodesFailed++
		}
		return x, projection.Set, nil
	case execution.ExecutionCompleted:
		return ended(x, execution.StatusCompleted, e.Time), projection.Set, nil
	case execution.ExecutionFailed:
		return ended(x, execution.StatusFailed, e.Time), projection.Set, nil
	case execution.ExecutionCancelled:
		return ended(x, execution.StatusCancelled, e.Time), projection.Set, nil
	}
	return x, projection.Keep, unexpected(e)
}

func ended(x Execution, status execution.Status, at time.Time) Execution {
	ms := at.Sub(x.StartedAt).Milliseconds()
	x.Status, x.EndedAt, x.DurationMs = status, &at, &ms
	return x
}
