// Command service is the program that the harness runs as children: the stock services over the
// test's own project, and an ingest with what the stock one does not offer from outside (own.go).
// It is built once per set of build tags, so that a planted bug is in the services and nowhere
// else.
package main

import (
	"os"

	"github.com/foldstream/foldstream/pkg/app"
	"github.com/foldstream/foldstream/test/faults/project"
)

// envPlanted names the bug that a build with the tag "planted" has. The engine has read it before
// main begins; the configuration would take it for a setting of ours that it does not know.
const envPlanted = "FOLDSTREAM_PLANTED"

func main() {
	_ = os.Unsetenv(envPlanted)
	if len(os.Args) > 1 && os.Args[1] == ownCommand {
		os.Exit(runOwn(os.Args[2:]))
	}
	os.Exit(app.Main(project.Program()))
}
