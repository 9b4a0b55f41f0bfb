package reference

import (
	"reflect"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/query"
)

// Answers are what the read side of the reference program says beyond the rows of its views.
func Answers() query.Definitions {
	workflows, executions, nodes := views.WorkflowList().Name, views.ExecutionHistory().Name, views.NodeMetrics().Name
	return query.Definitions{
		Resources: []query.Resource{
			{Path: "workflows", Name: "Workflow", View: workflows, Held: map[string]reflect.Type{
				"nodes": reflect.TypeFor[[]views.Node](), "connections": reflect.TypeFor[[]views.Connection](),
			}},
			{Path: "executions", Name: "Execution", View: executions},
		},
		Statistics: []query.Statistic{
			{
				Path: "executions", Name: "ExecutionStatistics", View: executions, Time: "started_at",
				Summary: "How executions went, by the hour or the day in which they were started", Measures: executionMeasures(),
			},
			{
				Path: "nodes", Name: "NodeStatistics", View: nodes, By: []string{"workflow_id", "node"},
				Summary: "How often the nodes of workflows fail, and how long they take", Measures: nodeMeasures(),
			},
		},
	}
}

func executionMeasures() []query.Measure {
	inStatus := func(name string, s execution.Status) query.Measure {
		return query.Measure{Name: name, Aggregate: query.Count, Column: "status", Equals: string(s)}
	}
	duration := func(name string, fraction float64) query.Measure {
		return query.Measure{Name: name, Aggregate: query.Percentile, Column: "duration_ms", Fraction: fraction, Doc: "Of those that have ended"}
	}
	return []query.Measure{
		{Name: "started", Aggregate: query.Count},
		inStatus("running", execution.StatusRunning),
		inStatus("completed", execution.StatusCompleted),
		inStatus("failed", execution.StatusFailed),
		inStatus("cancelled", execution.StatusCancelled),
		{
			Name: "success_rate", Aggregate: query.Ratio, Of: []string{"completed"}, Over: []string{"completed", "failed"},
			Doc: "The completed among the completed and the failed, from 0 to 1; null without any",
		},
		{Name: "duration_mean_ms", Aggregate: query.Mean, Column: "duration_ms", Doc: "Of those that have ended"},
		duration("duration_p50_ms", 0.50),
		duration("duration_p95_ms", 0.95),
		duration("duration_p99_ms", 0.99),
	}
}

func nodeMeasures() []query.Measure {
	return []query.Measure{
		{Name: "executions", Aggregate: query.Sum, Column: "executions"},
		{Name: "failures", Aggregate: query.Sum, Column: "failures"},
		{Name: "total_ms", Aggregate: query.Sum, Column: "total_ms"},
		{Name: "error_rate", Aggregate: query.Ratio, Of: []string{"failures"}, Over: []string{"executions"}, Doc: "From 0 to 1"},
		{Name: "duration_mean_ms", Aggregate: query.Ratio, Of: []string{"total_ms"}, Over: []string{"executions"}},
	}
}
