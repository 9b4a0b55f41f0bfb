package views

import (
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/projection"
)

// NodeMetric is a row of node_metrics: how one node of a workflow did in all its executions.
type NodeMetric struct {
	WorkflowID string    `db:"workflow_id,key"`
	Node       string    `db:"node,key"`
	Executions int64     `db:"executions,add"`
	Failures   int64     `db:"failures,add"`
	TotalMs    int64     `db:"total_ms,add"`
	FirstAt    time.Time `db:"first_at,min"`
	LastAt     time.Time `db:"last_at,max"`
}

// NodeMetrics has a row per workflow and node.
func NodeMetrics() projection.View {
	return projection.Metric(projection.MetricSpec[NodeMetric]{
		Name: "node_metrics", Version: 1,
		On:     []codec.TypeDef{projection.On[execution.NodeRecorded]("execution.NodeRecorded", 1)},
		Deltas: nodeDeltas,
	})
}

func nodeDeltas(e projection.Event) ([]NodeMetric, error) {
	d, ok := e.Data.(execution.NodeRecorded)
	if !ok {
		return nil, unexpected(e)
	}
	m := NodeMetric{WorkflowID: d.WorkflowID, Node: d.Node, Executions: 1, TotalMs: d.DurationMs, FirstAt: e.Time, LastAt: e.Time}
	if d.Outcome == execution.OutcomeFailed {
		m.Failures = 1
	}
	return []NodeMetric{m}, nil
}

// HourMetric is a row of metrics_hourly: what happened in one hour, in UTC.
type HourMetric struct {
	Hour      time.Time `db:"hour,key"`
	Started   int64     `db:"started,add"`
	Completed int64     `db:"completed,add"`
	Failed    int64     `db:"failed,add"`
	Cancelled int64     `db:"cancelled,add"`
	Nodes     int64     `db:"nodes,add"`
}

// MetricsHourly has a row per hour in which something happened.
func MetricsHourly() projection.View {
	return projection.Metric(projection.MetricSpec[HourMetric]{
		Name: "metrics_hourly", Version: 1, On: executionTypes(), Deltas: hourDeltas,
	})
}

func hourDeltas(e projection.Event) ([]HourMetric, error) {
	m := HourMetric{Hour: e.Time.UTC().Truncate(time.Hour)}
	switch e.Data.(type) {
	case execution.ExecutionStarted:
		m.Started = 1
	case execution.NodeRecorded:
		m.Nodes = 1
	case execution.ExecutionCompleted:
		m.Completed = 1
	case execution.ExecutionFailed:
		m.Failed = 1
	case execution.ExecutionCancelled:
		m.Cancelled = 1
	default:
		return nil, unexpected(e)
	}
	return []HourMetric{m}, nil
}
