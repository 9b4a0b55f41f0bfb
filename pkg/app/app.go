// Package app is the door through which a program made of somebody's own deciders and views runs
// Foldstream's services (DESIGN §12):
//
//	//go:embed foldstream.yaml schemas
//	var project embed.FS
//
//	func main() {
//		os.Exit(app.Main(app.Program{Name: "shop", Project: project, Deciders: []decider.Any{orders}}))
//	}
//
// The binary then has the services as subcommands (ingest, projector, all) and the tools that
// its topics and schemas need (topics plan|apply, schema check|register|list). It joins a local
// stack by --data-dir, and a real one by configuration; `--help` lists both.
package app

import (
	"io/fs"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Program is what a binary is made of.
type Program struct {
	// Name of the binary, in its help and in the remedies of its errors. Default "foldstream".
	Name string
	// Project holds foldstream.yaml and the folders beside it at its root. Nil means that a
	// folder must be named by --project, which wins over this in any case.
	Project fs.FS
	// Deciders, one for each category in mode decider. A category without one, or a decider
	// without its category, is an error at start.
	Deciders []decider.Any
	// Views to keep in Postgres.
	Views []projection.View
}

// Main runs the program with the process's arguments and signals and returns its exit code:
// 0 done, 1 failure, 2 usage, 3 not found, 4 denied, 5 conflict, 6 done in part, 130 interrupted.
// The first SIGINT or SIGTERM drains, the second one ends at once.
func Main(p Program) int {
	root, _ := app.NewCommand(app.Program{Name: p.Name, Project: p.Project, Deciders: p.Deciders, Views: p.Views})
	return app.Execute(root)
}
