// Package views is the read side of the reference project: four views over workflows and their
// executions. All times are business times (ce_time) in UTC.
package views

import "github.com/foldstream/foldstream/pkg/projection"

// All returns every view of the reference project, as Go.
func All() []projection.View {
	return []projection.View{WorkflowList(), ExecutionHistory(), NodeMetrics(), MetricsHourly()}
}

// InGo returns the views that the reference project runs as they are here. The others are declared
// in views/ at the repository's root; their versions here are what those are held against.
func InGo() []projection.View {
	return []projection.View{ExecutionHistory(), MetricsHourly()}
}
