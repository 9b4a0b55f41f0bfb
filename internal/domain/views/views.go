// Package views is the read side of the reference project: four views over workflows and their
// executions. All times are business times (ce_time) in UTC.
package views

import "github.com/foldstream/foldstream/pkg/projection"

// All returns every view of the reference project.
func All() []projection.View {
	return []projection.View{WorkflowList(), ExecutionHistory(), NodeMetrics(), MetricsHourly()}
}
