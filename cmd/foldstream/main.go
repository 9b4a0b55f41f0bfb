// Command foldstream is everything in one binary: each service and tool as a subcommand, and a
// local stack for development.
package main

import (
	"os"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/reference"
	"github.com/spf13/cobra"
)

func main() { os.Exit(app.Execute(newCommand())) }

func newCommand() *cobra.Command {
	root, globals := app.NewCommand(reference.Program("foldstream"))
	root.AddCommand(devCommand(globals), demoCommand(globals), importCommand(globals), doctorCommand(globals))
	return root
}
