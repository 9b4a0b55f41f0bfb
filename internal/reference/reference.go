// Package reference is the reference program: the project in the repository's root with the
// deciders and views of internal/domain. The programs in cmd/ run it unless --project names
// another.
package reference

import (
	"github.com/foldstream/foldstream"
	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/decider"
)

// Program returns the reference program under the name of a binary.
func Program(name string) app.Program {
	return app.Program{
		Name: name, Stock: true, Project: foldstream.Project,
		Deciders: []decider.Any{workflow.Decider, execution.Decider},
		Views:    views.InGo(),
		Answers:  Answers(),
	}
}
