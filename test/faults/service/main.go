// Command service is the program that the harness runs as children: the stock services over the
// test's own project. It is built once per set of build tags, so that a planted bug is in the
// services and nowhere else.
package main

import (
	"os"

	"github.com/foldstream/foldstream/pkg/app"
	"github.com/foldstream/foldstream/test/faults/project"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == skewedCommand {
		os.Exit(runSkewed(os.Args[2:]))
	}
	os.Exit(app.Main(project.Program()))
}
